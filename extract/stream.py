"""Media through decoding processes and the encoder into blocks: the part of an extraction that one process does.

A block is committed as soon as it is full: ending the process at any moment loses at most the one in flight. Blocks
are runs of readable media in the order given, and a batch never crosses two of them: what was interrupted and run
again writes the very blocks that it would have written.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.console import Advance, silent
from epalm.cores import usable_cores
from epalm.errors import MediaError
from epalm.extract.decoding.workers import Request, default_workers
from epalm.extract.encoders.registry import Encoder
from epalm.extract.encoding import BatchEncoder, decode_pool
from epalm.extract.inputs.augment import view_of
from epalm.extract.media.limits import MediaWarning
from epalm.extract.plan import Pending
from epalm.extract.request import ExtractRequest

CHANGED = MediaError("the file changed while it was read", hint="run the extraction again")
_BATCHES_AHEAD = 2


@dataclass
class Tally:
    """What was done: media encoded, media found bad, media that another process has encoded meanwhile, seconds."""

    encoded: int = 0
    bad: int = 0
    elsewhere: int = 0
    decode_seconds: float = 0.0  # of all decoding processes together
    encode_seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        """Count what another one counted, too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Stream:
    """Decoding processes and an encoder at work for one feature set; to be closed."""

    def __init__(
        self,
        encoder: Encoder,
        features: FeatureSet,
        request: ExtractRequest,
        *,
        cores: int | None = None,
        media: int | None = None,
        advance: Advance = silent,
    ) -> None:
        """`cores` [default: all that may be used] are to compute on; `media` is the most that there are to decode."""
        spec, gpu = features.spec, encoder.device.type == "cuda"
        workers = default_workers(gpu=gpu, cores=cores) if request.workers is None else request.workers
        threads = (cores or usable_cores()) if workers else 0
        self.features, self.tally, self._advance = features, Tally(), advance
        self._batches = BatchEncoder(encoder, spec.layers, spec.stored_dtype, request.batch_size, threads=threads)
        self._pool = decode_pool(encoder, workers if media is None else min(workers, media), request.timeout)
        self._block_rows, self._strict = request.block_rows, encoder.input.limits.strict
        self._seed = int((spec.augmentation or {"seed": 0})["seed"])
        self._notes: list[Entry] = []  # not in the ledger yet
        self._digests: list[str] = []  # of the block that is being filled
        self._rows: list[np.ndarray] = []  # of it, (B, V, L, T, D) each
        self._under_way: deque[Callable[[], np.ndarray]] = deque()  # its batches that are being computed

    def close(self) -> None:
        """End the decoding processes, and wait for what is being computed."""
        self._batches.close()
        self._pool.close()

    def go(self, items: Sequence[Pending], views: tuple[int, ...]) -> None:
        """Decode, encode and commit these views of media that all lack them."""
        self._digests, self._rows, batch = [], [], list[np.ndarray]()
        self._under_way.clear()
        per_batch = self._batches.media_at_once(len(views))
        try:
            for item, inputs in self._readable(items, views, _BATCHES_AHEAD * per_batch):
                self._digests.append(item.digest)
                batch.append(inputs)
                full = len(self._digests) == self._block_rows
                if full or len(batch) == per_batch:
                    self._encode(batch, finish=full)
                    batch = []
                if full:
                    self._commit(views)
            self._encode(batch, finish=True)
            self._commit(views)
        finally:
            self._write_notes()

    def _encode(self, inputs: Sequence[np.ndarray], *, finish: bool) -> None:
        """Start on a batch, and wait for those that have to be done before the next; with `finish`, for all."""
        started = time.perf_counter()
        if inputs:
            self._under_way.append(self._batches.submit(inputs))
        while len(self._under_way) > (0 if finish else self._batches.under_way - 1):
            rows = self._under_way.popleft()()
            self._rows.append(rows)
            self._advance(len(rows))
        self.tally.encode_seconds += time.perf_counter() - started

    def _commit(self, views: tuple[int, ...]) -> None:
        if not self._digests:
            return
        rows = np.concatenate(self._rows)
        self._write_notes()  # before the row is there: a kill in between must not lose a warning
        made = {"device": self._batches.encoder.device.type}
        written = self.features.write_block(self._digests, rows, views, made=made)
        self.tally.encoded += written
        self.tally.elsewhere += len(rows) - written
        self._digests, self._rows = [], []

    def _readable(
        self, items: Sequence[Pending], views: tuple[int, ...], ahead: int
    ) -> Iterator[tuple[Pending, np.ndarray]]:
        sent: deque[Pending] = deque()
        for done in self._pool.decode(self._requests(items, views, sent), ahead=ahead):
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
        while items:
            for item in items[: self._block_rows]:
                sent.append(item)
                yield Request(item.file, tuple(view_of(item.digest, view, self._seed) for view in views))
            rest = items[self._block_rows :]
            items = without_rows(self.features, rest, views) if rest else []  # others may have committed some meanwhile
            if gone := len(rest) - len(items):
                self.tally.elsewhere += gone
                self._advance(gone)

    def _blame(self, item: Pending, digest: str | None, error: MediaError) -> None:
        self._notes.append(Entry(item.media, digest, error.message, error.hint))
        if len(self._notes) >= self._block_rows:
            self._write_notes()
        self.tally.bad += 1
        self._advance(note=f"{self.tally.bad} bad")

    def _write_notes(self) -> None:
        """Put errors and warnings into the ledger: a block's worth in one step, as a step may be a request."""
        self.features.ledger.add_all(self._notes)
        self._notes = []


def without_rows(features: FeatureSet, items: Sequence[Pending], views: Sequence[int]) -> list[Pending]:
    """Those of the media that lack one of these views, as far as is committed now."""
    held = [features.rows(view) for view in views]
    return [item for item in items if not all(item.digest in rows for rows in held)]


def _refusal(warning: MediaWarning) -> MediaError:
    remedy = "extract with --retry-bad and without --strict-media to take it as it is"
    return MediaError(warning.message, hint=f"{warning.hint}; or {remedy}" if warning.hint else remedy)
