"""From decoded inputs to rows as they are stored: batches through the encoder, several under way at a time.

Letters: B media, V views, L layers, T tokens, D hidden size. Knows encoders; knows no data set and no cache.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Lock

import numpy as np
import torch

from epalm.console import warn
from epalm.errors import EpalmError, MediaError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.encoders.registry import Encoder
from epalm.extract.inputs.augment import VIEW_0
from epalm.media import MediaFile


class BatchEncoder:
    """Rows of chosen layers in the stored dtype. With threads, `submit` returns before they are there."""

    def __init__(
        self, encoder: Encoder, layers: Sequence[int], dtype: str, batch_size: int, *, threads: int = 0
    ) -> None:
        """`batch_size` counts inputs: each view of a medium is one.

        With `threads`, a CPU computes so many batches side by side, a thread each: none waits for another, as they
        would within one batch whenever a decoding process takes a core from one of them. Without, all share a batch.
        A GPU computes one at a time; with `threads`, the next is waiting there meanwhile.
        """
        self._encoder, self._batch_size = encoder, batch_size
        self._layers, self._dtype = list(layers), np.dtype(dtype)
        self._on_gpu = encoder.device.type == "cuda"
        self._turn = Lock() if self._on_gpu else nullcontext()
        self._threads: ThreadPoolExecutor | None = None
        if threads and self._on_gpu:
            self._threads = ThreadPoolExecutor(2, "encode")
        elif threads:
            self._threads = ThreadPoolExecutor(threads, "encode", initializer=torch.set_num_threads, initargs=(1,))
        self.under_way = 2 if self._on_gpu else threads + 1  # batches: those computed, and one that is prepared

    def media_at_once(self, views: int) -> int:
        """How many media of so many views make a batch."""
        return max(1, self._batch_size // views)

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
            there = self._encoder.input.normalise(raw.to(self._encoder.device, non_blocking=True))
            computed = self._encoder.encode(there)[: media * views, self._layers].float()
        tokens = computed.cpu().numpy()
        with np.errstate(over="ignore"):
            rows = tokens.astype(self._dtype)
        if not np.isfinite(tokens).all():
            raise EpalmError("the encoder gives values that are not numbers", hint="check its weights")
        if not np.isfinite(rows).all():
            raise EpalmError(f"the encoder's values do not fit {self._dtype}", hint="store them with --dtype float32")
        return rows.reshape(media, views, len(self._layers), 1, -1)  # `[CLS]` alone: one token


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
