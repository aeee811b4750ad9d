"""Media through decoding processes and the encoder into blocks: the part of an extraction that one process does.

A block is committed as soon as it is full: ending the process at any moment loses at most the one in flight. Blocks
are runs of readable media in the order given, and a batch never crosses two of them: what was interrupted and run
again writes the very blocks that it would have written.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.console import Advance, silent
from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool, Request, default_workers
from epalm.extract.encoders.registry import Encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.inputs.augment import view_of
from epalm.extract.plan import Pending
from epalm.extract.request import ExtractRequest

CHANGED = MediaError("the file changed while it was read", hint="run the extraction again")
_LENIENT = "extract with --retry-bad and without --strict-media to take it as it is"
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
        from dask.system import cpu_count

        spec, read = features.spec, encoder.input
        self.tally, self._features, self._encoder, self._advance = Tally(), features, encoder, advance
        self._block_rows = request.block_rows
        self._seed = int((spec.augmentation or {"seed": 0})["seed"])
        self._notes: list[Entry] = []  # not in the ledger yet
        cores, workers = cores or cpu_count(), request.workers
        if workers is None:
            workers = default_workers(gpu=encoder.device.type == "cuda", cores=cores)
        threads = cores if workers else 0
        self._batches = BatchEncoder(encoder, spec.layers, spec.stored_dtype, request.batch_size, threads=threads)
        workers = workers if media is None else min(workers, media)
        self._pool = DecodePool(read, workers, timeout=request.timeout, memory_limit=read.limits.memory)

    def close(self) -> None:
        """End the decoding processes, and wait for what is being computed."""
        self._batches.close()
        self._pool.close()

    def go(self, items: Sequence[Pending]) -> None:
        """Decode, encode and commit what these media lack; neighbours that lack the same views share blocks."""
        try:
            for views, some in groupby(items, key=lambda item: item.views):
                readable = self._readable(list(some), views)
                while self._commit_block(islice(readable, self._block_rows), views):
                    pass
        finally:
            self._write_notes()

    def _commit_block(self, readable: Iterator[tuple[Pending, np.ndarray]], views: tuple[int, ...]) -> bool:
        """Encode a block's media and commit their rows; false when there are none."""
        digests: list[str] = []
        rows: list[np.ndarray] = []  # (B, V, L, T, D) each
        under_way: deque[Callable[[], np.ndarray]] = deque()  # batches that are being computed
        while True:
            batch = list(islice(readable, self._batches.media_at_once(len(views))))
            started = time.perf_counter()
            if batch:
                digests += [item.digest for item, _ in batch]
                under_way.append(self._batches.submit([inputs for _, inputs in batch]))
            while len(under_way) >= (self._batches.under_way if batch else 1):
                rows.append(under_way.popleft()())
                self._advance(len(rows[-1]))
            self.tally.encode_seconds += time.perf_counter() - started
            if not batch:
                break
        if digests:
            self._write_notes()  # before the rows are there: a kill in between must not lose a warning
            made = {"device": self._encoder.device.type}
            written = self._features.write_block(digests, np.concatenate(rows), views, made=made)
            self.tally.encoded += written
            self.tally.elsewhere += len(digests) - written
        return bool(digests)

    def _readable(self, items: Sequence[Pending], views: tuple[int, ...]) -> Iterator[tuple[Pending, np.ndarray]]:
        """Media with their raw inputs (V, ...); of the others, the ledger's lines are noted."""
        sent: deque[Pending] = deque()
        ahead = _BATCHES_AHEAD * self._batches.media_at_once(len(views))
        for answer in self._pool.decode(self._requests(items, sent), ahead=ahead):
            item, inputs, warning = sent.popleft(), answer.result, answer.warning
            self.tally.decode_seconds += answer.seconds
            digest: str | None = item.digest
            if not item.file.unchanged(item.status, item.digest):  # neither a row nor an entry under this digest
                inputs, digest = CHANGED, None
            elif warning and self._encoder.input.limits.strict and isinstance(inputs, np.ndarray):
                hints = [warning.hint, f"or {_LENIENT}"] if warning.hint else [_LENIENT]
                inputs = MediaError(warning.message, hint="; ".join(hints))
            if isinstance(inputs, MediaError):
                self.tally.bad += 1
                self._advance(note=f"{self.tally.bad} bad")
                self._note(Entry(item.media, digest, inputs.message, inputs.hint))
            else:
                if warning:
                    self._note(Entry(item.media, digest, warning.message, warning.hint, warning=True))
                yield item, inputs

    def _requests(self, items: Sequence[Pending], sent: "deque[Pending]") -> Iterator[Request]:
        while items:
            for item in items[: self._block_rows]:
                sent.append(item)
                yield Request(item.file, tuple(view_of(item.digest, view, self._seed) for view in item.views))
            rest = items[self._block_rows :]
            items = without_rows(self._features, rest) if rest else []  # others may have committed some meanwhile
            if gone := len(rest) - len(items):
                self.tally.elsewhere += gone
                self._advance(gone)

    def _note(self, entry: Entry) -> None:
        self._notes.append(entry)
        if len(self._notes) >= self._block_rows:  # a block's worth in one step, as a step may be a request
            self._write_notes()

    def _write_notes(self) -> None:
        self._features.ledger.add_all(self._notes)
        self._notes = []


def without_rows(features: FeatureSet, items: Sequence[Pending]) -> list[Pending]:
    """Those of the media that lack a row of one of their views, as far as is committed now."""
    rows = {view: features.rows(view) for view in {view for item in items for view in item.views}}
    return [item for item in items if not all(item.digest in rows[view] for view in item.views)]
