"""Damaged blocks encoded again: the same rows in the same order, batches and views, so that the same bytes come out.

Mends what one checkup of a feature set has found, and says of each finding what became of it. What cannot be made
again is dropped: its rows are missing from then on, which training and the next extraction notice.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from epalm.cache.blocks import Record, read_block, read_record
from epalm.cache.care.check import Checkup, Finding, orphans
from epalm.cache.care.mend import Contents, contents, drop_texts, restore
from epalm.cache.care.why import library_differences
from epalm.cache.feature_set import Fault, FeatureSet
from epalm.cache.spec import TEXT, FeatureSpec
from epalm.cache.store import Cache
from epalm.console import Advance, progress
from epalm.cores import usable_cores
from epalm.errors import EpalmError, UsageError
from epalm.extract.decoding.workers import DEFAULT_TIMEOUT, DecodePool, default_workers
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.lost_blocks import Run, Shape, left_shape, runs_of_lost
from epalm.extract.media.limits import Limits
from epalm.extract.selection import feature_spec
from epalm.extract.sources import Sources
from epalm.extract.stream import Stream, decode_pool
from epalm.samples import Modality

BLOCK_ROWS, BATCH = 512, 32  # of blocks whose records do not say
_NAMED = 3  # media named in a message
_ADMITTED = Limits(pixels=1 << 34, frames=1 << 40, seconds=1e9, bytes=1 << 62)  # whatever has a row was let in once
Build = Callable[[Mapping[str, str]], Encoder]  # what an extraction recorded of its choice → that encoder


class Outcome(StrEnum):
    """What became of a finding."""

    RESTORED = "restored"  # from the rest of the set
    ENCODED = "encoded"  # from the media
    DROPPED = "dropped"  # rows are missing now
    LEFT = "left"  # nothing here can mend it


@dataclass(frozen=True, slots=True)
class Mended:
    """A finding's `what`, what became of it, and in words."""

    what: str
    outcome: Outcome
    message: str


def repair_set(checkup: Checkup, cache: Cache, build: Build, *, workers: int | None = None) -> list[Mended]:
    """Mend all findings of a set; the encoder is built only where media have to be encoded.

    Raises:
        CacheError: the storage refused.
    """
    features = checkup.features
    if features is None:
        return [Mended(one.what, Outcome.LEFT, one.hint) for one in checkup.findings]
    done, hard = [], []
    for finding in checkup.findings:
        if finding.fault and not finding.fault.damaged:
            done.append(Mended(finding.what, Outcome.LEFT, finding.hint))
        elif restore(checkup, finding):
            done.append(Mended(finding.what, Outcome.RESTORED, "put right from the rest of the set"))
        elif finding.fault or finding.lost:
            hard.append(finding)
        else:
            done.append(Mended(finding.what, Outcome.LEFT, finding.hint))
    if features.spec.modality == TEXT:
        return done + [Mended(one.what, Outcome.DROPPED, drop_texts(features, one)) for one in hard]
    return done + (_Recomputation(checkup, features, cache, build, workers).go(hard) if hard else [])


class _Recomputation:
    """What needs the media: blocks whose rows are known, then those whose rows are told from the data sets."""

    def __init__(self, checkup: Checkup, features: FeatureSet, cache: Cache, build: Build, workers: int | None) -> None:
        self._features, self._build, self._workers = features, build, workers
        self._records = checkup.records
        self._sources = Sources(checkup.manifests, Modality(features.spec.modality), cache.media)
        self._why_not = ""  # there is no encoder

    def go(self, findings: Sequence[Finding]) -> list[Mended]:
        known = [(one, held) for one in findings if (held := contents(self._features, one))]
        faults = [one.fault for one in findings if one.fault and not contents(self._features, one)]
        salvaged = {row for _, held in known for row in held.rows}
        lost = [row for one in findings for row in one.lost if row not in salvaged]
        names = [fault.block for fault in faults] + (orphans(self._features.objects) if lost else [])
        shapes = {name: left_shape(self._features.objects, name) for name in names}
        # A record that cannot be read keeps all others from being read, so these go first.
        for one in findings:
            if one.fault and not one.fault.record:
                self._features.drop(one.fault.block)
        runs = self._runs(lost, shapes, known)
        rows = salvaged | {row for run in runs for row in run.digests}
        self._sources.look_for(rows)
        with ExitStack() as stack, progress(f"repair {self._features.name}", len(rows), "media") as advance:
            work = self._begin(stack, len(rows), advance)
            broken = {held.block for _, held in known}
            sound = _views_of([(one.views, one.rows) for one in self._records if one.block not in broken])
            mended = [self._again(one, held, sound, work) for one, held in known]
            for run in runs:
                work(self._features, run.digests, run.views, run.rows, self._batch(run.views))
        there = set(self._features.block_names())
        mended += [_of_unknown(fault, fault.block in there, bool(lost)) for fault in faults]
        return mended + [self._of_lost(one) for one in findings if one.lost]

    def _runs(
        self, lost: Sequence[str], shapes: Mapping[str, Shape | None], known: Sequence[tuple[Finding, Contents]]
    ) -> list[Run]:
        if not lost and not shapes:
            return []
        blocks = [(one.views, one.rows) for one in self._records]
        held = _views_of([*blocks, *((one.views, one.rows) for _, one in known)])
        sequences = self._sources.sequences(self._features.ledger.digests())
        return runs_of_lost(lost, shapes, sequences, self._records, held, block_rows=BLOCK_ROWS)

    def _begin(self, stack: ExitStack, media: int, advance: Advance) -> "_Work":
        encoder, pool, threads = None, None, 0
        if self._sources.found:
            try:
                encoder = self._built()
            except EpalmError as error:
                self._why_not = f"the encoder is not at hand: {error.message}"
        if encoder:
            gpu = encoder.device.type == "cuda"
            workers = default_workers(gpu=gpu) if self._workers is None else self._workers
            pool = stack.enter_context(decode_pool(encoder, min(workers, media), DEFAULT_TIMEOUT))
            threads = usable_cores() if workers else 0
        return _Work(self._features.spec, self._sources, encoder, pool, threads, advance)

    def _built(self) -> Encoder:
        """By the latest extraction's choice of encoder, else an earlier one's: its weights may still be in their place.

        Raises:
            EpalmError: none of them can be built, or what is built is another encoder by now.
        """
        spec = self._features.spec
        recorded = [self._features.recorded, *(record.recorded for record in reversed(self._records))]
        choices: dict[str, Mapping[str, str]] = {}
        for told in recorded:
            if "encoder" in told:
                choices.setdefault(told["encoder"], told)
        fault: EpalmError = UsageError("the feature set does not say which encoder made it")
        for told in choices.values():
            try:
                encoder = self._build(told)
            except EpalmError as error:
                fault = error
                continue
            seed = int((spec.augmentation or {"seed": 0})["seed"])
            if feature_spec(encoder, spec.layers, spec.stored_dtype, view_seed=seed) == spec:
                encoder.input = replace(encoder.input, limits=_ADMITTED)  # type: ignore[type-var]
                return encoder
            fault = UsageError("it has other weights or settings by now")
        raise fault

    def _batch(self, views: tuple[int, ...]) -> int:
        """Media in a batch of such blocks, as the other records say."""
        said = [_batch_of(record.written) for record in self._records if record.views == views]
        return next((batch for batch in said if batch), max(1, BATCH // len(views)))

    def _again(self, finding: Finding, held: Contents, sound: Mapping[int, Collection[str]], work: "_Work") -> Mended:
        features, what = self._features, finding.what
        if all(row in sound.get(view, ()) for row in held.rows for view in held.views):
            features.drop(held.block)
            return Mended(what, Outcome.RESTORED, "dropped: other blocks hold all its rows")
        target = _Replacing(features, held.block)
        work(target, held.rows, held.views, len(held.rows), _batch_of(held.written) or self._batch(held.views))
        if not target.replaced:
            features.drop(held.block)
        if lacking := self._lacking(held.rows, held.views):
            return Mended(what, Outcome.DROPPED, self._named(lacking, len(held.rows)))
        again = None
        if held.block in features.block_names():
            again = read_record(features.objects, held.block)  # as it is now: the set remembers the one before
            read_block(features.objects, again)
        if again and held.checksum in (None, again.checksum):
            same = "byte for byte as it was" if held.checksum else "the same rows in the same order"
            return Mended(what, Outcome.ENCODED, f"encoded again, {same}")
        return Mended(what, Outcome.ENCODED, f"encoded again, not to the checksum of its record{_changes(held, again)}")

    def _lacking(self, rows: Iterable[str], views: Iterable[int]) -> list[str]:
        held = [self._features.rows(view) for view in views]
        return [row for row in rows if not all(row in there for there in held)]

    def _of_lost(self, finding: Finding) -> Mended:
        if lacking := self._lacking(finding.lost, (0,)):
            return Mended(finding.what, Outcome.DROPPED, self._named(lacking, len(finding.lost)))
        return Mended(finding.what, Outcome.ENCODED, "encoded again")

    def _named(self, lacking: Sequence[str], of: int) -> str:
        """Which rows cannot be made again, why, and what to do."""
        bad = {digest: entry.error for digest, entry in self._features.ledger.digests().items()}
        reasons = [
            self._why_not or bad.get(row, "") if row in self._sources.found else self._sources.why_not(row)
            for row in lacking[:_NAMED]
        ]
        named = "; ".join(f"{self._sources.name(row)}: {why}" for row, why in zip(lacking, reasons, strict=False))
        more = f"; and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
        return (
            f"dropped: {len(lacking):,} of {of:,} rows are gone ({named}{more}); where encoder and media are at hand, "
            "epalm extract makes them again"
        )


@dataclass(frozen=True)
class _Work:
    """Encodes and commits media that were found, where there is an encoder."""

    spec: FeatureSpec
    sources: Sources
    encoder: Encoder | None
    pool: DecodePool | None
    threads: int  # that encode, a batch each; 0: one batch by all
    advance: Advance

    def __call__(
        self, target: FeatureSet, digests: Sequence[str], views: tuple[int, ...], rows: int, batch: int
    ) -> None:
        found = self.sources.found
        items = [replace(found[digest], views=views) for digest in digests if digest in found]
        if self.encoder and self.pool and items:
            # As the extraction computed them: rounding depends on it.
            layers, dtype, size = self.spec.layers, self.spec.stored_dtype, batch * len(views)
            with closing(BatchEncoder(self.encoder, layers, dtype, size, threads=self.threads)) as batches:
                Stream(batches, target, self.pool, rows, self.advance).go(items, views)


class _Replacing(FeatureSet):
    """The set, which takes a damaged block away in the moment in which its rows are there again."""

    def __init__(self, features: FeatureSet, block: str) -> None:
        super().__init__(features.objects, features.spec)
        self._block, self.replaced = block, False

    def write_block(
        self,
        digests: Sequence[str],
        values: np.ndarray,
        views: Sequence[int] = (0,),
        *,
        made: Mapping[str, Any] | None = None,
    ) -> int:
        self.drop(self._block)
        self.replaced = True
        return super().write_block(digests, values, views, made=made)


def _of_unknown(fault: Fault, there: bool, lost: bool) -> Mended:
    what = f"block {fault.block}"
    if there:
        return Mended(what, Outcome.ENCODED, "encoded again, the same rows in the same order")
    if lost:  # these are a finding of their own
        return Mended(
            what, Outcome.RESTORED, "dropped: which rows it held is not known; those that lack were looked for"
        )
    message = "dropped: which rows it held is not known; epalm extract, as it was run, makes what lacks again"
    return Mended(what, Outcome.DROPPED, message)


def _views_of(blocks: Iterable[tuple[Sequence[int], Sequence[str]]]) -> dict[int, set[str]]:
    """View → media that have it."""
    held: dict[int, set[str]] = {}
    for views, rows in blocks:
        for view in views:
            held.setdefault(view, set()).update(rows)
    return held


def _batch_of(written: Mapping[str, Any]) -> int:
    """Media in a batch, as a block's record says; 0 when it does not."""
    said = written.get("batch")
    return said if isinstance(said, int) and said > 0 else 0


def _changes(held: Contents, again: Record | None) -> str:
    """What may have changed the rounding since a block was first made."""
    now = again.written if again else {}
    devices = [str(written.get("device", "")) for written in (held.written, now)]
    was = held.written.get("recorded")
    changed = library_differences(was if isinstance(was, dict) else {}, again.recorded if again else {})
    if all(devices) and devices[0] != devices[1]:
        changed.append(f"device {devices[0]} → {devices[1]}")
    return f": {', '.join(changed)}" if changed else ""
