"""From decoded inputs to rows as they are stored: batches through the encoder, several under way at a time.

Letters: B media, V views, L layers, T tokens, D hidden size. Knows encoders; knows no data set and no cache.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from epalm.console import warn
from epalm.errors import EpalmError, MediaError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.encoders.registry import Encoder
from epalm.extract.inputs.augment import VIEW_0
from epalm.media import MediaFile


class BatchEncoder:
    """Rows of chosen layers in the stored dtype. On a GPU, and with threads, `submit` returns before they are there."""

    def __init__(
        self, encoder: Encoder, layers: Sequence[int], dtype: str, batch_size: int, *, threads: int = 0
    ) -> None:
        """`batch_size` counts inputs: each view of a medium is one.

        With `threads`, a CPU computes so many batches side by side, a thread each: none waits for another, as they
        would within one batch whenever a decoding process takes a core from one of them. Without, all share a batch.
        """
        self.encoder, self.batch_size = encoder, batch_size
        self._layers, self._dtype = list(layers), np.dtype(dtype)
        self.on_gpu = encoder.device.type == "cuda"
        self._threads: ThreadPoolExecutor | None = None
        if threads and not self.on_gpu:
            self._threads = ThreadPoolExecutor(threads, "encode", initializer=torch.set_num_threads, initargs=(1,))
        self.under_way = threads + 1 if self._threads else 2  # batches: those computed, and one that is prepared

    def media_at_once(self, views: int) -> int:
        """How many media of so many views make a batch."""
        return max(1, self.batch_size // views)

    def submit(self, inputs: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
        """Start on the raw inputs (V, ...) of some media, all of the same views; called, it gives the rows.

        These are (B, V, L, T, D) in the stored dtype. The call raises EpalmError for values that are no numbers, or do
        not fit.
        """
        views, count = len(inputs[0]), len(inputs) * len(inputs[0])
        # One shape for all batches of a GPU: kernels are chosen, and compiled, once.
        size = max(count, self.media_at_once(views) * views) if self.on_gpu else count
        raw = torch.from_numpy(np.concatenate(inputs))
        if self.on_gpu:
            raw = torch.cat([raw, raw[:1].expand(size - count, *raw.shape[1:])]).pin_memory()
        if self._threads:
            tokens = self._threads.submit(self._encode, raw, count)
            return lambda: self._rows(tokens.result(), views)
        there = self._encode(raw, count)
        if not self.on_gpu:
            return lambda: self._rows(there, views)
        here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
        here.copy_(there, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def wait() -> np.ndarray:
            done.synchronize()
            return self._rows(here, views)

        return wait

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _rows(self, tokens: torch.Tensor, views: int) -> np.ndarray:
        rows = stored(tokens.cpu().numpy(), self._dtype)
        media, layers, width = len(rows) // views, *rows.shape[1:]
        return rows.reshape(media, views, layers, 1, width)  # `[CLS]` alone: one token

    @torch.inference_mode()
    def _encode(self, raw: torch.Tensor, count: int) -> torch.Tensor:
        there = raw.to(self.encoder.device, non_blocking=True)
        return self.encoder.encode(self.encoder.input.normalise(there))[:count, self._layers].float()


def decode_pool(encoder: Encoder, workers: int, timeout: float) -> DecodePool:
    """`workers` processes that read what the encoder reads, each within the limits of one medium."""
    return DecodePool(encoder.input, workers, timeout=timeout, memory_limit=encoder.input.limits.memory)


def encode_each(
    files: Sequence[MediaFile], encoder: Encoder, layers: Sequence[int], pool: DecodePool
) -> list[np.ndarray | MediaError]:
    """View 0 of each file (L, T, D) float32, or why it cannot be read, in one batch.

    What is odd about one is shown as a warning.
    """
    results = []
    for one in pool.decode((Request(file, (VIEW_0,)) for file in files), ahead=len(files)):
        if one.warning:
            warn(f"{one.request.medium.path.name}: {one.warning.message}")
        results.append(one.result)
    inputs = [one for one in results if not isinstance(one, MediaError)]
    if not inputs:
        return list(results)
    batches = BatchEncoder(encoder, layers, "float32", len(files))
    tokens = iter(batches.submit(inputs)()[:, 0])
    return [one if isinstance(one, MediaError) else next(tokens) for one in results]


def stored(tokens: np.ndarray, dtype: "np.dtype[Any]") -> np.ndarray:
    """Values as they are stored. Raises EpalmError when they are no numbers, or do not fit."""
    with np.errstate(over="ignore"):
        values = tokens.astype(dtype)
    if not np.isfinite(values).all():
        if np.isfinite(tokens).all():
            raise EpalmError(f"the encoder's values do not fit {dtype}", hint="store them with --dtype float32")
        raise EpalmError("the encoder gives values that are not numbers", hint="check its weights")
    return values
