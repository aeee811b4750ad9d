"""Is a feature set whole? Every object of it is read; what is not as it should be becomes a finding, and is repaired.

Repair puts right what the rest of the set tells and drops the other damaged blocks: their rows are missing from then
on, and the next extraction makes them again. Knows no models and opens no media.
"""

import json
from collections.abc import Sequence
from typing import Any

from epalm.cache.blocks import BLOCKS, Fault, Record
from epalm.cache.feature_set import FeatureSet
from epalm.cache.fields import NOT_AS_WRITTEN
from epalm.cache.manifest import MANIFESTS, Manifest, names_by_digest, read_manifest
from epalm.cache.store import Cache
from epalm.console import first_in_words, progress
from epalm.errors import CacheError

COLUMNS = ["set", "what", "error", "block", "hint", "outcome", "repair"]
RESTORED, DROPPED, LEFT = "restored", "dropped", "left"  # no row is missing; rows are missing now; nothing was changed
_RECORDED = "recorded.json"
_NAMED = 3  # media named in a message; the rest is counted
_REPAIR = "epalm cache verify --repair"
_READ = "check the storage, then verify again; what cannot be read is not dropped, as it may be whole"


class Checkup:
    """The findings of one set.

    `blocks` have a record that can be read, and come to `bytes`. A finding has the keys `COLUMNS`: `what` is the key of
    an object, "block …" or "rows of …"; `outcome` and `repair`, in words, are there where it was to be repaired.
    """

    def __init__(self, name: str, *, repair: bool) -> None:
        self.set, self.repair = name, repair
        self.blocks = self.bytes = 0
        self.findings: list[dict[str, Any]] = []

    def add(self, what: str, error: str, hint: str, block: str | None = None) -> dict[str, Any]:
        """Another finding, which is left as it is."""
        outcome = (LEFT, hint) if self.repair else (None, None)
        finding = dict(zip(COLUMNS, (self.set, what, error, block, hint, *outcome), strict=True))
        self.findings.append(finding)
        return finding


def check_set(cache: Cache, name: str, *, repair: bool = False) -> Checkup:
    """Read everything of a feature set, with a bar, and repair it where that is asked for. Raises CacheError."""
    checkup = Checkup(name, repair=repair)
    try:
        features = cache.load(name)
    except CacheError as error:
        hint = f"{error.hint or ''}; it says what the rows are, and no record does"
        checkup.add("spec.json", error.message, hint)
        return checkup
    records, faults = features.sound_records()
    checkup.blocks, checkup.bytes = len(records), sum(record.bytes for record in records)
    with progress(f"verify {name}", len(records), "blocks") as advance:
        faults += features.damaged_blocks(records, advance)
    damaged = {fault.block for fault in faults}
    whole = [record for record in records if record.block not in damaged]
    manifests = []
    for key in features.objects.names(MANIFESTS):
        try:
            manifests.append(read_manifest(features.objects, key))
        except CacheError as error:
            checkup.add(f"{MANIFESTS}/{key}", error.message, "the next epalm extract on that data set writes it again")
    _check_recorded(checkup, features, whole)
    _check_rows(checkup, features, records, faults, manifests)
    for fault in faults:
        finding = checkup.add(f"block {fault.block}", fault.error, _REPAIR if fault.damaged else _READ, fault.block)
        if repair and fault.damaged:
            done = LEFT, "another process has dropped it or made it again"
            if features.drop(fault.block, fault.record):
                done = _dropped(fault.record, whole, manifests)
            finding["outcome"], finding["repair"] = done
    return checkup


def _check_recorded(checkup: Checkup, features: FeatureSet, whole: Sequence[Record]) -> None:
    """What the latest extraction said of itself, of which each record has a copy."""
    try:
        if not isinstance(json.loads(features.objects.read(_RECORDED)), dict):
            raise ValueError("it has other contents than were written")
    except (CacheError, *NOT_AS_WRITTEN) as error:
        finding = checkup.add(_RECORDED, f"{features.where}/{_RECORDED} is damaged: {error}", _REPAIR)
        copies = [record for record in whole if record.recorded]
        if checkup.repair and copies:
            features.note(max(copies, key=lambda record: record.time or 0.0).recorded)
            finding.update(outcome=RESTORED, repair="put right from the rest of the set")


def _check_rows(
    checkup: Checkup,
    features: FeatureSet,
    records: Sequence[Record],
    faults: Sequence[Fault],
    manifests: Sequence[Manifest],
) -> None:
    """Media that the manifests name and nothing else, where a record is damaged or gone.

    Where none is they had no row, as an import may bring names of such media.
    """
    try:
        entries = features.ledger.entries()
    except CacheError as error:
        checkup.add("ledger.jsonl", error.message, error.hint or "check the disk")
        return
    folders = {name.partition("-")[0] for name in features.objects.names(BLOCKS) if "-" in name}
    lost = [fault for fault in faults if not fault.record]
    # Which rows are lost cannot be told from records that cannot be read now.
    if not all(fault.damaged for fault in lost) or not (lost or folders - set(features.block_names())):
        return
    # Rows of damaged blocks are named with these: only what no record speaks of is lost.
    known = [*records, *(fault.record for fault in faults if fault.record)]
    accounted = {row for record in known if 0 in record.views for row in record.rows}
    accounted |= {digest for entry in entries for digest in (entry.digest, entry.media) if digest}
    for manifest in manifests:
        if names := [name for name, digest in manifest.digests.items() if not accounted & {name, digest}]:
            checkup.add(
                f"rows of {manifest.data}",
                f"media with neither a row nor a line in the ledger: {len(names):,}: {first_in_words(names, _NAMED)}",
                f"epalm extract --data {manifest.data} makes them again where the media are",
            )


def _dropped(record: Record | None, whole: Sequence[Record], manifests: Sequence[Manifest]) -> tuple[str, str]:
    """Outcome and repair of a block that was dropped: which rows are missing now, and what makes them again."""
    if record is None:
        return (
            DROPPED,
            "dropped: its record does not say which rows it held; epalm extract, run as before, makes them again",
        )
    held = {(row, view) for one in whole for row in one.rows for view in one.views}
    missing = [row for row in record.rows if any((row, view) not in held for view in record.views)]
    if not missing:
        return RESTORED, "dropped: other blocks hold all its rows"
    names = names_by_digest(manifests)
    shown = first_in_words([names[row][0] if row in names else f"digest {row[:12]}" for row in missing], _NAMED)
    sources = [one.data for one in manifests if not set(missing).isdisjoint(one.digests.values())]
    again = " and ".join(f"epalm extract --data {data}" for data in sources) or "epalm extract, run as before,"
    rows = f"{len(missing):,} rows are missing now: {shown}"
    return DROPPED, f"dropped: {rows}; {again} makes those again whose media are there"
