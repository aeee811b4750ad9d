"""What of a damaged feature set can be put right from what is whole of it, without a model.

Nothing is taken on trust: values count as whole when their checksum says so, rows when a block's name does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epalm.cache.blocks import GROUP, GROUPS, Record, block_id, read_block, restore_block
from epalm.cache.care.check import RECORDED, Checkup, Finding
from epalm.cache.feature_set import FeatureSet
from epalm.errors import CacheError


@dataclass(frozen=True, slots=True)
class Contents:
    """What a damaged block held: media digests in order, views, and what its record said of how it was made."""

    block: str
    rows: tuple[str, ...]
    views: tuple[int, ...]
    written: Mapping[str, Any]
    checksum: str | None = None  # of the values that were committed, where the record is whole


def restore(checkup: Checkup, finding: Finding) -> bool:
    """Put one finding right from the rest of the set; False when that needs the media, or cannot be done.

    Raises:
        CacheError: the storage refused.
    """
    features, fault = checkup.features, finding.fault
    if features is None:
        return False
    if finding.what in GROUPS:
        features.objects.write(finding.what, GROUP)
        return True
    if finding.what == RECORDED:
        return _restore_recorded(features, checkup.records)
    if fault is None or fault.record is None or not restore_block(features.objects, fault.record):
        return False
    try:
        features.require_fit(fault.record)
        read_block(features.objects, fault.record)
    except CacheError:
        return False
    return True


def contents(features: FeatureSet, finding: Finding) -> Contents | None:
    """What a damaged block held; None when neither its record nor what is left of it proves it."""
    fault = finding.fault
    if fault is None:
        return None
    if record := fault.record:
        return Contents(record.block, record.rows, record.views, record.written, record.checksum)
    try:
        value = json.loads(features.objects.read(Record.key(fault.block)))
        rows, views = tuple(value["rows"]), tuple(value["views"])
        if block_id(rows, views) != fault.block or list(views) != sorted(set(views)) or len(set(rows)) != len(rows):
            return None
    except (CacheError, ValueError, TypeError, KeyError):
        return None
    written = value.get("written")
    return Contents(fault.block, rows, views, written if isinstance(written, dict) else {})


def drop_texts(features: FeatureSet, finding: Finding) -> str:
    """Drop a damaged block of texts' rows, which only a training with its language model makes; what to do."""
    if finding.fault:
        features.drop(finding.fault.block)
    return "dropped: epalm train --cache-trunk, as it was run, makes its rows again"


def _restore_recorded(features: FeatureSet, records: Sequence[Record]) -> bool:
    """From the latest block's record, which holds a copy."""
    told = [record for record in records if record.recorded]
    if not told:
        return False
    latest = max(told, key=lambda record: record.time or 0.0)
    features.note(latest.recorded)
    return True
