"""Is a feature set whole? Every object of it is read; what is not as it should be becomes a finding, and is mended.

Mending puts right what the rest of the set tells and drops the other damaged blocks: their rows are missing from then
on, and the next extraction makes them again. Knows no models and opens no media.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from epalm.cache.blocks import BLOCKS, GROUP, GROUPS, Fault, Record
from epalm.cache.care.sweep import leftovers
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import MANIFESTS, Manifest, names_by_digest, read_manifest
from epalm.cache.reader import RowIndex
from epalm.cache.store import Cache
from epalm.console import progress, size_in_words
from epalm.errors import CacheError

SPEC, RECORDED = "spec.json", "recorded.json"
_NAMED = 3  # media named in a message; the rest is counted
_MIB = 2**20
_MEND = "epalm cache verify --repair"
_READ = "check the storage, then verify again; what cannot be read is not dropped, as it may be whole"


class Outcome(StrEnum):
    """What became of a finding."""

    RESTORED = "restored"  # no row is missing
    DROPPED = "dropped"  # rows are missing now
    LEFT = "left"  # nothing was changed


@dataclass
class Finding:
    """One thing that is damaged: the key of an object, "block …" or "rows of …"; what about it, what to do.

    `fault` is there for a block; `outcome` and `repair`, in words, once it was mended.
    """

    what: str
    error: str
    hint: str
    fault: Fault | None = None
    outcome: Outcome | None = None
    repair: str = ""

    def to_json(self) -> dict[str, Any]:
        """What a report says of it."""
        told = {"what": self.what, "error": self.error, "block": self.fault and self.fault.block, "hint": self.hint}
        return told | ({"outcome": self.outcome.value, "repair": self.repair} if self.outcome else {})


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

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged, or all of it was restored."""
        return all(finding.outcome is Outcome.RESTORED for finding in self.findings)


def check_sets(cache: Cache, names: Sequence[str]) -> list[Checkup]:
    """Read everything of these feature sets, with a bar."""
    checkups = [_look_around(cache, name) for name in names]
    done = 0
    with progress("verify", sum(checkup.bytes for checkup in checkups) // _MIB, "MiB") as bar:

        def advance(size: int) -> None:
            nonlocal done
            before, done = done // _MIB, done + size
            bar(done // _MIB - before)

        for checkup in checkups:
            if checkup.features:
                faults = checkup.features.damaged_blocks(checkup.records, advance)
                checkup.findings += [_of_block(fault) for fault in faults]
                _check_ledger(checkup, checkup.features)
    return checkups


def repair(checkup: Checkup) -> None:
    """Mend what a checkup has found, and say of each finding what became of it. Raises CacheError."""
    damaged = {one.fault.block for one in checkup.findings if one.fault}
    whole = [record for record in checkup.records if record.block not in damaged]
    for finding in checkup.findings:
        finding.outcome, finding.repair = Outcome.LEFT, finding.hint
        if checkup.features:
            _mend(checkup, checkup.features, finding, whole)


def _look_around(cache: Cache, name: str) -> Checkup:
    """Look at everything of a set but its blocks and its ledger."""
    checkup = Checkup(name)
    try:
        features = checkup.features = cache.load(name)
    except CacheError as error:
        hint = f"{error.hint or ''}; it says what the rows are, and no record does"
        checkup.findings.append(Finding(SPEC, error.message, hint))
        return checkup
    for key in (*GROUPS, RECORDED):
        try:
            value = json.loads(features.objects.read(key))
            if not (value == json.loads(GROUP) if key in GROUPS else isinstance(value, dict)):
                raise ValueError("it has other contents than were written")
        except (CacheError, ValueError) as error:
            checkup.findings.append(Finding(key, f"{features.where}/{key} is damaged: {error}", _MEND))
    checkup.records, faults = features.sound_records()
    checkup.findings += [_of_block(fault) for fault in faults]
    for key in features.objects.names(MANIFESTS):
        try:
            checkup.manifests.append(read_manifest(features.objects, key))
        except CacheError as error:
            hint = "the next epalm extract on that data set writes it again"
            checkup.findings.append(Finding(f"{MANIFESTS}/{key}", error.message, hint))
    if twice := RowIndex(checkup.records).repeated:
        checkup.notes.append(f"{_count(twice, 'row')} stored more than once; reading takes one of each")
    if loose := list(leftovers(features.objects)):
        blocks = {one.key.split("/")[1] for one in loose if one.key.startswith(f"{BLOCKS}/")}
        size = f"{_count(len(blocks), 'block')} and {size_in_words(sum(one.bytes for one in loose))}"
        checkup.notes.append(f"{size} left over by killed processes; epalm cache gc frees them")
    return checkup


def _of_block(fault: Fault) -> Finding:
    return Finding(f"block {fault.block}", fault.error, _MEND if fault.damaged else _READ, fault)


def _check_ledger(checkup: Checkup, features: FeatureSet) -> None:
    """Media that the manifests name and nothing else: a finding where a record is damaged or gone, else a note.

    An import may bring names of media that never had a row.
    """
    try:
        entries, torn = features.ledger.entries(), features.ledger.torn_lines()
    except CacheError as error:
        checkup.findings.append(Finding("ledger.jsonl", error.message, error.hint or "check the disk"))
        return
    if torn:
        checkup.notes.append(f"ledger.jsonl: {_count(torn, 'line')} not whole, passed over")
    faults = [one.fault for one in checkup.findings if one.fault]
    if any(not fault.damaged and not fault.record for fault in faults):
        return  # which rows are lost cannot be told from records that cannot be read now
    recorded = set(features.block_names())
    folders = [name.partition("-")[0] for name in features.objects.names(BLOCKS) if "-" in name]
    gone = any(not fault.record for fault in faults) or not recorded.issuperset(folders)
    # Rows of blocks that were found damaged are named already: only what no record speaks of is lost.
    known = [*checkup.records, *(fault.record for fault in faults if fault.record)]
    accounted = {row for record in known if 0 in record.views for row in record.rows}
    accounted |= {digest for entry in entries for digest in (entry.digest, entry.media) if digest}
    for manifest in checkup.manifests:
        lost = [name for name, digest in manifest.digests.items() if not accounted & {name, digest}]
        if not lost:
            continue
        count = _count(len(lost), "medium", "media")
        what = f"{count} of {manifest.data} with neither a row nor a line in the ledger: {_shown(lost)}"
        if gone:
            hint = f"epalm extract --data {manifest.data} makes them again where the media are"
            checkup.findings.append(Finding(f"rows of {manifest.data}", what, hint))
        else:
            checkup.notes.append(f"{what}; epalm extract looks at them again")


def _mend(checkup: Checkup, features: FeatureSet, finding: Finding, whole: Sequence[Record]) -> None:
    fault = finding.fault
    copies = [record for record in checkup.records if record.recorded]  # each has a copy of recorded.json
    if finding.what in GROUPS:
        features.objects.write(finding.what, GROUP)
    elif finding.what == RECORDED and copies:
        features.note(max(copies, key=lambda record: record.time or 0.0).recorded)
    elif fault and fault.damaged:
        features.drop(fault.block)
        finding.outcome, finding.repair = _dropped(fault.record, whole, checkup.manifests)
        return
    else:
        return
    finding.outcome, finding.repair = Outcome.RESTORED, "put right from the rest of the set"


def _dropped(record: Record | None, whole: Sequence[Record], manifests: Sequence[Manifest]) -> tuple[Outcome, str]:
    """Which rows are missing now that a block was dropped, and what makes them again."""
    if record is None:
        message = "dropped: its record does not say which rows it held; epalm extract, run as before, makes them again"
        return Outcome.DROPPED, message
    held = {(row, view) for one in whole for row in one.rows for view in one.views}
    rows = [row for row in record.rows if any((row, view) not in held for view in record.views)]
    if not rows:
        return Outcome.RESTORED, "dropped: other blocks hold all its rows"
    names, missing = names_by_digest(manifests), set(rows)
    shown = _shown([names[row][0] if row in names else f"digest {row[:12]}" for row in rows])
    sources = [one.data for one in manifests if not missing.isdisjoint(one.digests.values())]
    again = " and ".join(f"epalm extract --data {data}" for data in sources) or "epalm extract, run as before,"
    counted = f"{len(rows):,} rows are missing now: {shown}"
    return Outcome.DROPPED, f"dropped: {counted}; {again} makes those again whose media are there"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
