"""Media through decoding processes and the encoder into blocks: the part of an extraction that one process does.

A block is committed as soon as it is full: ending the process at any moment loses at most the one in flight. Blocks
are runs of readable media in the order given, and a batch never crosses two of them: what was interrupted and run
again writes the very blocks that it would have written.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.console import Advance
from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoding import BatchEncoder, Handle
from epalm.extract.inputs.views import view_of
from epalm.extract.media.media_warnings import MediaWarning
from epalm.extract.plan import Pending

CHANGED = MediaError("the file changed while it was read", hint="run the extraction again")
_BATCHES_AHEAD = 2


def decode_pool(encoder: Encoder, workers: int, timeout: float) -> DecodePool:
    """`workers` processes that read what the encoder reads, each within the limits of one medium."""
    return DecodePool(encoder.input, workers, timeout=timeout, memory_limit=encoder.input.limits.memory)


@dataclass
class Tally:
    """What was done: media encoded, media found bad, media that another process has encoded meanwhile, seconds."""

    encoded: int = 0
    bad: int = 0
    elsewhere: int = 0
    decode_seconds: float = 0.0  # of all decoding processes together
    encode_seconds: float = 0.0


@dataclass
class Stream:
    """An extraction under way in this process."""

    encoder: BatchEncoder
    features: FeatureSet
    pool: DecodePool
    block_rows: int
    advance: Advance
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        augmentation = self.features.spec.augmentation
        self._seed = int(augmentation["seed"]) if augmentation else 0
        self._strict = self.encoder.encoder.input.limits.strict
        self._notes: list[Entry] = []  # not in the ledger yet

    def go(self, items: Sequence[Pending], views: tuple[int, ...]) -> None:
        """Decode, encode and commit these views of media that all lack them."""
        block = _Block(self, views)
        per_batch = self.encoder.media_at_once(len(views))
        batch: list[tuple[str, np.ndarray]] = []
        try:
            for item, inputs in self._readable(items, views, _BATCHES_AHEAD * per_batch):
                batch.append((item.digest, inputs))
                if len(batch) == per_batch or len(block) + len(batch) == self.block_rows:
                    block.add(batch)
                    batch = []
            if batch:
                block.add(batch)
            block.commit()
        finally:
            self.write_notes()

    def write_notes(self) -> None:
        """Put errors and warnings into the ledger: a block's worth in one step, as a step may be a request."""
        self.features.ledger.add_all(self._notes)
        self._notes = []

    def _readable(
        self, items: Sequence[Pending], views: tuple[int, ...], ahead: int
    ) -> Iterator[tuple[Pending, np.ndarray]]:
        sent: deque[Pending] = deque()
        for done in self.pool.decode(self._requests(items, views, sent), ahead=ahead):
            item = sent.popleft()
            self.tally.decode_seconds += done.seconds
            if not item.unchanged():
                # Another content than the digest names: neither a row nor an entry under that one.
                self._blame(item, None, CHANGED)
            elif isinstance(done.result, MediaError):
                self._blame(item, item.digest, done.result)
            elif done.warning and self._strict:
                self._blame(item, item.digest, _refusal(done.warning))
            else:
                if done.warning:
                    warning = Entry(item.media, item.digest, done.warning.message, done.warning.hint, warning=True)
                    self._notes.append(warning)
                yield item, done.result

    def _requests(self, items: Sequence[Pending], views: tuple[int, ...], sent: "deque[Pending]") -> Iterator[Request]:
        for place, item in enumerate(items):
            if place and place % self.block_rows == 0:  # what others have committed need not be done again
                held = [self.features.rows(view) for view in views]
                rest = [one for one in items[place:] if not all(one.digest in rows for rows in held)]
                if len(rest) < len(items) - place:
                    self.tally.elsewhere += len(items) - place - len(rest)
                    self.advance(len(items) - place - len(rest))
                    yield from self._requests(rest, views, sent)
                    return
            sent.append(item)
            yield Request(item.file, tuple(view_of(item.digest, view, self._seed) for view in views))

    def _blame(self, item: Pending, digest: str | None, error: MediaError) -> None:
        self._notes.append(Entry(item.media, digest, error.message, error.hint))
        if len(self._notes) >= self.block_rows:
            self.write_notes()
        self.tally.bad += 1
        self.advance(note=f"{self.tally.bad} bad")


def _refusal(warning: MediaWarning) -> MediaError:
    remedy = "extract with --retry-bad and without --strict-media to take it as it is"
    return MediaError(warning.message, hint=f"{warning.hint}; or {remedy}" if warning.hint else remedy)


class _Block:
    """The block being filled, and the batches of it that are under way."""

    def __init__(self, stream: Stream, views: tuple[int, ...]) -> None:
        self._stream, self._views = stream, views
        self._digests: list[str] = []
        self._under_way: deque[Handle] = deque()
        self._rows: list[np.ndarray] = []  # (B, V, L, T, D) each

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, batch: list[tuple[str, np.ndarray]]) -> None:
        started = time.perf_counter()
        self._under_way.append(self._stream.encoder.submit([inputs for _, inputs in batch]))
        self._digests += [digest for digest, _ in batch]
        if len(self._under_way) >= self._stream.encoder.under_way or len(self) == self._stream.block_rows:
            self._collect(all_of_them=len(self) == self._stream.block_rows)
        self._stream.tally.encode_seconds += time.perf_counter() - started
        if len(self) == self._stream.block_rows:
            self.commit()

    def commit(self) -> None:
        self._collect(all_of_them=True)
        if not self._digests:
            return
        rows = np.concatenate(self._rows)
        made = {"device": self._stream.encoder.encoder.device.type}
        self._stream.write_notes()  # before the row is there: a kill in between must not lose a warning
        written = self._stream.features.write_block(self._digests, rows, self._views, made=made)
        self._stream.tally.encoded += written
        self._stream.tally.elsewhere += len(rows) - written
        self._digests, self._rows = [], []

    def _collect(self, *, all_of_them: bool) -> None:
        while self._under_way and (all_of_them or len(self._under_way) >= self._stream.encoder.under_way):
            rows: Any = self._stream.encoder.collect(self._under_way.popleft())
            self._rows.append(rows)
            self._stream.advance(len(rows))
