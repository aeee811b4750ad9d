"""What `verify --repair` does: put right what the rest of a feature set tells, and drop the other damaged blocks.

Rows of a dropped block are missing from then on: training names
them, and the next extraction makes them again. Knows no models and opens no media.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from epalm.cache.blocks import GROUP, GROUPS, Record
from epalm.cache.care.check import RECORDED, Checkup, Finding
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Manifest

_NAMED = 3  # media named in a message


class Outcome(StrEnum):
    """What became of a finding."""

    RESTORED = "restored"  # no row is missing
    DROPPED = "dropped"  # rows are missing now
    LEFT = "left"  # nothing was changed


@dataclass(frozen=True, slots=True)
class Mended:
    """A finding's `what`, what became of it, and in words."""

    what: str
    outcome: Outcome
    message: str


def repair(checkup: Checkup) -> list[Mended]:
    """Mend what one checkup has found, and say of each finding what became of it.

    Raises:
        CacheError: the storage refused.
    """
    features = checkup.features
    if features is None:
        return [Mended(one.what, Outcome.LEFT, one.hint) for one in checkup.findings]
    damaged = {one.fault.block for one in checkup.findings if one.fault}
    sound = [record for record in checkup.records if record.block not in damaged]
    return [_mend(features, checkup, one, sound) for one in checkup.findings]


def _mend(features: FeatureSet, checkup: Checkup, finding: Finding, sound: Iterable[Record]) -> Mended:
    fault = finding.fault
    if fault and not fault.damaged:
        return Mended(finding.what, Outcome.LEFT, finding.hint)
    if _restore(features, finding, checkup.records):
        return Mended(finding.what, Outcome.RESTORED, "put right from the rest of the set")
    if fault is None:
        return Mended(finding.what, Outcome.LEFT, finding.hint)
    features.drop(fault.block)
    if fault.record is None:
        message = "dropped: its record does not say which rows it held; epalm extract, run as before, makes them again"
        return Mended(finding.what, Outcome.DROPPED, message)
    held = {(row, view) for record in sound for row in record.rows for view in record.views}
    gone = [row for row in fault.record.rows if any((row, view) not in held for view in fault.record.views)]
    if not gone:
        return Mended(finding.what, Outcome.RESTORED, "dropped: other blocks hold all its rows")
    return Mended(finding.what, Outcome.DROPPED, _dropped(gone, checkup.manifests))


def _restore(features: FeatureSet, finding: Finding, records: Iterable[Record]) -> bool:
    """Put one finding right from the rest of the set; False when that cannot be done."""
    if finding.what in GROUPS:
        features.objects.write(finding.what, GROUP)
        return True
    return finding.what == RECORDED and _restore_recorded(features, records)


def _restore_recorded(features: FeatureSet, records: Iterable[Record]) -> bool:
    """From the latest block's record, which holds a copy."""
    copies = [record for record in records if record.recorded]
    if copies:
        features.note(max(copies, key=lambda record: record.time or 0.0).recorded)
    return bool(copies)


def _dropped(rows: list[str], manifests: Iterable[Manifest]) -> str:
    """Which rows are missing now, and what makes them again."""
    names: dict[str, str] = {}
    sources: Mapping[str, None] = {}
    wanted = set(rows)
    for manifest in manifests:
        found = {digest: name for name, digest in manifest.digests.items() if digest in wanted}
        names |= found
        sources = {**sources, **({manifest.data: None} if found else {})}
    shown = ", ".join(names.get(row, f"digest {row[:12]}") for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    again = " and ".join(f"epalm extract --data {data}" for data in sources) or "epalm extract, run as before,"
    return (
        f"dropped: {len(rows):,} rows are missing now: {shown}{more}; {again} makes those again whose media are there"
    )
