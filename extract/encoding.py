"""From decoded inputs to rows as they are stored: batches through the encoder, one ahead where it is a GPU.

Letters: B media, V views, L layers, D width. Knows encoders; knows no files and no cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from epalm.errors import EpalmError
from epalm.extract.encoder import Encoder


@dataclass(frozen=True)
class Handle:
    """A batch under way: (B·V, L, D) on its way to the CPU, behind `done` on a GPU."""

    tokens: torch.Tensor
    media: int
    views: int
    done: "torch.cuda.Event | None"


class BatchEncoder:
    """Rows of chosen layers in the stored dtype. On a GPU, `submit` returns while the batch is computed."""

    def __init__(self, encoder: Encoder, layers: Sequence[int], dtype: str, batch_size: int) -> None:
        """`batch_size` counts inputs: each view of a medium is one."""
        self.encoder, self.batch_size = encoder, batch_size
        self._layers, self._dtype = list(layers), np.dtype(dtype)
        self.on_gpu = encoder.device.type == "cuda"

    def media_at_once(self, views: int) -> int:
        """How many media of so many views make a batch."""
        return max(1, self.batch_size // views)

    def submit(self, inputs: Sequence[np.ndarray]) -> Handle:
        """Start on the raw inputs (V, ...) of some media, all of the same views."""
        views, count = len(inputs[0]), len(inputs) * len(inputs[0])
        # One shape for all batches of a GPU: kernels are chosen, and compiled, once.
        size = max(count, self.media_at_once(views) * views) if self.on_gpu else count
        first = torch.from_numpy(inputs[0])
        raw = torch.empty((size, *first.shape[1:]), dtype=first.dtype, pin_memory=self.on_gpu)
        for place, array in enumerate(inputs):
            raw[place * views : (place + 1) * views] = torch.from_numpy(array)
        raw[count:] = raw[:1]
        with torch.inference_mode():
            there = raw.to(self.encoder.device, non_blocking=True)
            tokens = self.encoder.encode(self.encoder.input.normalise(there))[:count, self._layers].float()
            if not self.on_gpu:
                return Handle(tokens, len(inputs), views, None)
            here = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            here.copy_(tokens, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        return Handle(here, len(inputs), views, done)

    def collect(self, handle: Handle) -> np.ndarray:
        """The rows (B, V, L, D) of a batch that was submitted.

        Raises:
            EpalmError: values that are no numbers, or do not fit the stored dtype.
        """
        if handle.done is not None:
            handle.done.synchronize()
        rows = stored(handle.tokens.cpu().numpy(), self._dtype)
        return rows.reshape(handle.media, handle.views, *rows.shape[1:])


def stored(tokens: np.ndarray, dtype: "np.dtype[Any]") -> np.ndarray:
    """Values as they are stored. Raises EpalmError when they are no numbers, or do not fit."""
    with np.errstate(over="ignore"):
        values = tokens.astype(dtype)
    if not np.isfinite(values).all():
        if np.isfinite(tokens).all():
            raise EpalmError(f"the encoder's values do not fit {dtype}", hint="store them with --dtype float32")
        raise EpalmError("the encoder gives values that are not numbers", hint="check its weights")
    return values
