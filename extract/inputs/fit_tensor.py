"""The rule of transformers' processors, whose default is torchvision. A file of its own, as it needs torch.

A decoding process that is sent such a rule imports torch before its memory is limited.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from epalm.extract.inputs.fit import Fit, Interpolation


@dataclass(frozen=True)
class TensorFit(Fit):
    """As `Fit`, on tensors, whose resizing rounds otherwise; with `exact` it does not round: (H, W, 3) float32."""

    by = "torchvision"
    exact: bool = False

    def __call__(self, picture: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
        """See `Fit`."""
        return super().__call__(picture.astype(np.float32) if self.exact else picture, size, interpolation)

    def _resize(self, pixels: np.ndarray, to: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
        channels_first = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))  # its own, so writable
        mode = functional.InterpolationMode(interpolation)
        resized: np.ndarray = functional.resize(channels_first, list(to), mode, antialias=True).permute(1, 2, 0).numpy()
        return resized

    def _half(self, spare: int) -> int:
        return spare // 2
