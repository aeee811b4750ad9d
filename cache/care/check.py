"""Is a feature set whole? Every object of it is read, and what is not as it should be becomes a finding.

Finds and names; mends nothing, and knows no models.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from epalm.cache.blocks import BLOCKS, GROUP, GROUPS, RECORDS, Record
from epalm.cache.care.holes import lost_rows
from epalm.cache.care.sweep import leftovers
from epalm.cache.feature_set import Fault, FeatureSet
from epalm.cache.ledger import Entry
from epalm.cache.manifest import MANIFESTS, Manifest, read_manifest
from epalm.cache.objects.base import Objects
from epalm.cache.store import Cache
from epalm.console import size_in_words
from epalm.errors import CacheError

SPEC, RECORDED = "spec.json", "recorded.json"
_NAMED = 3  # media named in a message; the rest is counted
_MEND = "epalm cache verify --repair"
_READ = "check the storage, then verify again; what cannot be read is not mended, as it may be whole"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is damaged: the key of an object, "block ..." or "rows ...", what about it, what to do.

    `fault` is there for a block; `lost` holds the digests of media whose rows are gone with their record.
    """

    what: str
    error: str
    hint: str
    fault: Fault | None = None
    lost: tuple[str, ...] = ()


@dataclass
class Checkup:
    """What was found of one set. `features` is None where not even its description can be read."""

    set: str
    features: FeatureSet | None = None
    records: list[Record] = field(default_factory=list)  # those that are whole
    manifests: list[Manifest] = field(default_factory=list)  # likewise
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What there is to read of blocks."""
        return sum(record.bytes for record in self.records)


def begin_checkup(cache: Cache, name: str) -> Checkup:
    """Look at everything of a set but its blocks."""
    checkup = Checkup(name)
    try:
        features = checkup.features = cache.load(name)
    except CacheError as error:
        hint = error.hint or ""
        checkup.findings.append(Finding(SPEC, error.message, f"{hint}; it says what the rows are, and no record does"))
        return checkup
    checkup.records, faults = features.sound_records()
    checkup.findings += _descriptions(features)
    checkup.findings += [_of_block(fault) for fault in faults]
    checkup.findings += _read_manifests(features, checkup.manifests)
    checkup.notes += _twice(checkup.records)
    checkup.notes += _loose(features)
    return checkup


def finish_checkup(checkup: Checkup, advance: Callable[[int], object]) -> None:
    """Read every block; `advance` is told the bytes of each."""
    features = checkup.features
    if features is None:
        return
    faults = features.damaged_blocks(checkup.records, advance)
    checkup.findings += [_of_block(fault) for fault in faults]
    try:
        entries, torn = features.ledger.entries(), features.ledger.torn_lines()
    except CacheError as error:
        checkup.findings.append(Finding("ledger.jsonl", error.message, error.hint or "check the disk"))
        return
    if torn:
        checkup.notes.append(f"ledger.jsonl: {_count(torn, 'line')} not whole, passed over")
    _find_lost(features, checkup, entries)


def orphans(objects: Objects) -> list[str]:
    """Names of blocks of which a folder is there and no record."""
    recorded = {name.removesuffix(".json") for name in objects.names(RECORDS)}
    return sorted({folder.partition("-")[0] for folder in objects.names(BLOCKS) if "-" in folder} - recorded)


def rows_stored_twice(records: Sequence[Record]) -> dict[int, int]:
    """How many rows of each view are in more than one place."""
    stored: dict[int, list[str]] = {}
    for record in records:
        for view in record.views:
            stored.setdefault(view, []).extend(record.rows)
    return {view: len(rows) - len(set(rows)) for view, rows in stored.items()}


def _descriptions(features: FeatureSet) -> list[Finding]:
    found = [
        Finding(key, f"{features.where}/{key} does not describe a Zarr group", _MEND)
        for key in GROUPS
        if not _is_group(features, key)
    ]
    try:
        if not isinstance(features.recorded, dict):
            raise CacheError(f"{features.where}/{RECORDED} holds no JSON object")
    except CacheError as error:
        found.append(Finding(RECORDED, error.message, _MEND))
    return found


def _is_group(features: FeatureSet, key: str) -> bool:
    """Whether one of the set's Zarr groups is described as it should be."""
    try:
        return bool(json.loads(features.objects.read(key)) == json.loads(GROUP))
    except (CacheError, ValueError):
        return False


def _of_block(fault: Fault) -> Finding:
    return Finding(f"block {fault.block}", fault.error, _MEND if fault.damaged else _READ, fault)


def _read_manifests(features: FeatureSet, into: list[Manifest]) -> list[Finding]:
    found = []
    for name in features.objects.names(MANIFESTS):
        try:
            into.append(read_manifest(features.objects, name))
        except CacheError as error:
            hint = "the next epalm extract on that data set writes it again"
            found.append(Finding(f"{MANIFESTS}/{name}", error.message, hint))
    return found


def _twice(records: Sequence[Record]) -> list[str]:
    twice = sum(rows_stored_twice(records).values())
    return [f"{_count(twice, 'row')} stored more than once; reading takes one of each"] if twice else []


def _loose(features: FeatureSet) -> list[str]:
    loose = list(leftovers(features.objects))
    if not loose:
        return []
    blocks = {one.key.split("/")[1] for one in loose if one.key.startswith(f"{BLOCKS}/")}
    size = size_in_words(sum(one.bytes for one in loose))
    return [f"{_count(len(blocks), 'block')} and {size} left over by killed processes; epalm cache gc frees them"]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _find_lost(features: FeatureSet, checkup: Checkup, entries: Sequence[Entry]) -> None:
    """Media that the manifests name and nothing else: a finding where a record is damaged or gone, else a note.

    An import may bring names of media that never had a row.
    """
    faults = [one.fault for one in checkup.findings if one.fault]
    if any(not fault.damaged and not fault.record for fault in faults):
        return  # which rows are lost cannot be told from records that cannot be read now
    gone = any(not fault.record for fault in faults) or bool(orphans(features.objects))
    # Rows of blocks that were found damaged are named already: only what no record speaks of is lost.
    told = [*checkup.records, *(fault.record for fault in faults if fault.record)]
    rows = {row for record in told if 0 in record.views for row in record.rows}
    for manifest in checkup.manifests:
        names = lost_rows(manifest, rows, entries)
        if not names:
            continue
        shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
        count = _count(len(names), "medium", "media")
        error = f"{count} of {manifest.data} with neither a row nor a line in the ledger: {shown}"
        if gone:
            lost = tuple(dict.fromkeys(manifest.digests[name] for name in names))
            hint = f"epalm extract --data {manifest.data} makes them again where the media are"
            checkup.findings.append(Finding(f"rows of {manifest.data}", error, hint, lost=lost))
        else:
            checkup.notes.append(f"{error}; epalm extract looks at them again")
