"""Media through decoding processes and the encoder, in batches, into blocks: what one process does of an extraction.

A block is committed as soon as it is full: ending the process at any moment loses at most the one in flight. Blocks
are runs of readable media in the order given, and a batch never crosses two of them: what was interrupted and run
again writes the very blocks that it would have written.

Letters: B media, V views, L layers, T tokens, D hidden size.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby, islice
from threading import Lock

import numpy as np
import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry
from epalm.cache.spec import BLOCK_BYTES
from epalm.console import Advance, silent, warn
from epalm.errors import EpalmError, MediaError
from epalm.extract.decoding.workers import DecodePool, Request, default_workers
from epalm.extract.encoders.registry import Encoder
from epalm.extract.inputs.augment import VIEW_0, view_of
from epalm.extract.plan import Pending
from epalm.extract.request import ExtractRequest
from epalm.extract.spec_builder import library_versions
from epalm.media import MediaFile

CHANGED = MediaError("the file changed while it was read", hint="run the extraction again")
_LENIENT = "extract with --retry-bad and without --strict-media to take it as it is"
_BATCHES_AHEAD = 2


@dataclass
class Tally:
    """What was done: media encoded, media found bad, media that another process has encoded meanwhile."""

    encoded: int = 0
    bad: int = 0
    elsewhere: int = 0

    def add(self, other: "Tally") -> None:
        """Count what another one counted, too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class BatchEncoder:
    """Rows of chosen layers in the stored dtype. With threads, `submit` returns before they are there."""

    def __init__(
        self, encoder: Encoder, layers: Sequence[int], dtype: str, batch_size: int, *, threads: int = 0
    ) -> None:
        """`batch_size` counts inputs: each view of a medium is one. Of large rows, fewer make a batch: a block's worth
        for all that are computed side by side.

        With `threads`, a CPU computes so many batches side by side, a thread each: none waits for another, as they
        would within one batch whenever a decoding process takes a core from one of them. Without, all share a batch.
        A GPU computes one at a time; with `threads`, the next is waiting there meanwhile.
        """
        self._encoder = encoder
        self._layers, self._dtype = list(layers), getattr(torch, dtype)
        self._on_gpu = encoder.device.type == "cuda"
        self._turn = Lock() if self._on_gpu else nullcontext()
        self._threads: ThreadPoolExecutor | None = None
        if threads and self._on_gpu:
            self._threads = ThreadPoolExecutor(2, "encode")
        elif threads:
            self._threads = ThreadPoolExecutor(threads, "encode", initializer=torch.set_num_threads, initargs=(1,))
        self.under_way = 2 if self._on_gpu else threads + 1  # batches: those computed, and one that is prepared
        row = len(layers) * encoder.layout.tokens * encoder.width * self._dtype.itemsize
        self._at_once: int = min(batch_size, math.ceil(BLOCK_BYTES / row / (2 if self._on_gpu else max(1, threads))))

    def media_at_once(self, views: int) -> int:
        """How many media of so many views make a batch."""
        return max(1, self._at_once // views)

    def submit(self, inputs: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
        """Start on the raw inputs (V, ...) of some media, all of the same views; called, it gives the rows.

        These are (B, V, L, T, D) in the stored dtype. Raises EpalmError for values that are no numbers, or do not fit.
        """
        if self._threads:
            return self._threads.submit(self._encode, inputs).result
        rows = self._encode(inputs)
        return lambda: rows

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)

    @torch.inference_mode()
    def _encode(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        media, views = len(inputs), len(inputs[0])
        raw = torch.from_numpy(np.concatenate(inputs))
        if self._on_gpu:  # one shape for all batches: kernels are chosen, and compiled, once
            size = max(media, self.media_at_once(views)) * views
            raw = torch.cat([raw, raw[:1].expand(size - len(raw), *raw.shape[1:])]).pin_memory()
        with self._turn:
            normalised = self._encoder.input.normalise(raw.to(self._encoder.device, non_blocking=True))
            computed = self._encoder.encode(normalised, self._layers, self._dtype)[: media * views]  # (B·V, L, T, D)
            rows = computed.to(self._dtype)
        stored: np.ndarray = rows.cpu().numpy()
        if not np.isfinite(stored).all():
            # What a mean was taken of has been rounded before.
            if computed.dtype == self._dtype != torch.float32 or computed.isfinite().all():
                fault = f"the encoder's values do not fit {stored.dtype}"
                raise EpalmError(fault, hint="store them with --dtype float32, and check the encoder's weights")
            raise EpalmError("the encoder gives values that are not numbers", hint="check its weights")
        return stored.reshape(media, views, *stored.shape[1:])


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
        self._most_rows, self._batch_size = request.block_rows, request.batch_size
        self._seed = spec.view_seed
        # Of this very process: a Dask worker may have other libraries than the machine that plans.
        self._made = {"device": encoder.device.type, "recorded": library_versions() | request.choice().to_record()}
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
                rows = self._features.spec.block_rows(len(views), self._most_rows)
                while self._commit_block(islice(readable, rows), views):
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
            if batch:
                digests += [item.digest for item, _ in batch]
                under_way.append(self._batches.submit([inputs for _, inputs in batch]))
            while len(under_way) >= (self._batches.under_way if batch else 1):
                rows.append(under_way.popleft()())
                self._advance(len(rows[-1]))
            if not batch:
                break
        if digests:
            self._write_notes()  # before the rows are there: a kill in between must not lose a warning
            written = self._features.write_block(digests, np.concatenate(rows), views, made=self._made)
            self.tally.encoded += written
            self.tally.elsewhere += len(digests) - written
        return bool(digests)

    def _readable(self, items: Sequence[Pending], views: tuple[int, ...]) -> Iterator[tuple[Pending, np.ndarray]]:
        """Media with their raw inputs (V, ...); of the others, the ledger's lines are noted."""
        sent: deque[Pending] = deque()
        ahead = _BATCHES_AHEAD * max(1, self._batch_size // len(views))
        for answer in self._pool.decode(self._requests(items, sent), ahead=ahead):
            item, inputs, warning = sent.popleft(), answer.result, answer.warning
            digest: str | None = item.digest
            if not item.file.unchanged(item.status, item.digest):  # neither a row nor an entry under this digest
                inputs, digest = CHANGED, None
            elif warning and self._encoder.input.limits.strict_media and isinstance(inputs, np.ndarray):
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
        for start in range(0, len(items), self._most_rows):
            some = items[start : start + self._most_rows]
            left = without_rows(self._features, some) if start else some  # others may have committed some meanwhile
            if gone := len(some) - len(left):
                self.tally.elsewhere += gone
                self._advance(gone)
            for item in left:
                sent.append(item)
                yield Request(item.file, tuple(view_of(item.digest, view, self._seed) for view in item.views))

    def _note(self, entry: Entry) -> None:
        self._notes.append(entry)
        if len(self._notes) >= self._most_rows:  # a block's worth in one step, as a step may be a request
            self._write_notes()

    def _write_notes(self) -> None:
        self._features.ledger.add_all(self._notes)
        self._notes = []


def without_rows(features: FeatureSet, items: Sequence[Pending]) -> list[Pending]:
    """Those of the media that lack a row of one of their views, as far as is committed now."""
    held = features.held()
    return [item for item in items if not all(item.digest in held.get(view, ()) for view in item.views)]


def encode_each(
    files: Sequence[MediaFile], encoder: Encoder, layers: Sequence[int], pool: DecodePool
) -> list[np.ndarray | MediaError]:
    """View 0 of each file (L, T, D) float32, or why it cannot be read, in one batch.

    What is odd about one is shown as a warning.
    """
    answers = list(pool.decode((Request(file, (VIEW_0,)) for file in files), ahead=len(files)))
    for file, answer in zip(files, answers, strict=True):
        if answer.warning:
            warn(f"{file.path.name}: {answer.warning.message}")
    inputs = [answer.result for answer in answers if not isinstance(answer.result, MediaError)]
    rows = iter(BatchEncoder(encoder, layers, "float32", len(files)).submit(inputs)()[:, 0] if inputs else ())
    return [answer.result if isinstance(answer.result, MediaError) else next(rows) for answer in answers]
