"""How models' own processors bring a picture to the encoder's size: resized, then cut or padded around its centre.

Knows pixels; does not know whose processor it was.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


@dataclass(frozen=True)
class Fit:
    """The rule of timm's evaluation transform, on Pillow: (H, W, 3) uint8 → (height, width, 3) uint8.

    The picture is resized so that `edge`, its "shorter" or "longer", has the length in `to` (height, width), or "both"
    have, proportions not kept. Where it is smaller than the encoder's size then, `colour` is around it.
    """

    by: ClassVar = "pillow"
    edge: Literal["shorter", "longer", "both"]
    to: tuple[int, int]
    colour: tuple[int, int, int] = (0, 0, 0)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a picture of `height` × `width` pixels is resized to."""
        if self.edge == "both":
            return self.to
        if self.edge == "shorter" and self.to[0] == self.to[1]:  # as torchvision rounds, and transformers
            short = min(height, width)
            return self.to[0] * height // short, self.to[0] * width // short
        ratios = height / self.to[0], width / self.to[1]
        ratio = min(ratios) if self.edge == "shorter" else max(ratios)
        return round(height / ratio), round(width / ratio)

    def __call__(self, picture: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
        """The picture (H, W, 3) uint8 at the encoder's size (height, width)."""
        to = self.resized(*picture.shape[:2])
        pixels = self._resize(picture, to, interpolation) if to != picture.shape[:2] else picture
        framed = np.empty((*size, 3), pixels.dtype)
        framed[:] = self.colour
        places = [self._places(there, wanted) for there, wanted in zip(to, size, strict=True)]
        framed[places[0][1], places[1][1]] = pixels[places[0][0], places[1][0]]
        return framed

    def describe(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {**asdict(self), "to": list(self.to), "colour": list(self.colour), "by": self.by}

    def _resize(self, pixels: np.ndarray, to: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
        return np.asarray(
            Image.fromarray(np.ascontiguousarray(pixels)).resize(to[::-1], Image.Resampling[interpolation.upper()])
        )

    def _places(self, there: int, wanted: int) -> tuple[slice, slice]:
        """Of `there` pixels in a row, those in the middle that are taken, and where among the `wanted` they go."""
        length = min(there, wanted)
        before, ahead = self._half(there - length), (wanted - length) // 2
        return slice(before, before + length), slice(ahead, ahead + length)

    def _half(self, spare: int) -> int:
        """How many of the pixels too many are cut off at the beginning."""
        return round(spare / 2)
