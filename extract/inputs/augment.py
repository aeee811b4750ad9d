"""Views of a medium: number 0 is deterministic, each later one a random draw that never changes (method: section 2).

What a view draws follows from the medium's bytes, its number and the augmentation seed alone: not from the order, the
process, the batch or the machine. A draw is made once per medium and view, and applied after, so all frames of a clip
get the same crop, flip and operations. Only `Generator.random()` is called, a fixed number of times in a fixed order:
changing that, or anything else here that changes a result, needs the extraction's version (`spec_builder.py`) raised.
Knows no file and no encoder, and imports no torch, because decoding processes start without it.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from epalm.extract.inputs.fit import Interpolation
from epalm.fingerprint import canonical_json

_SEED_BYTES = 16
RATIO = (3 / 4, 4 / 3)  # aspect ratios (width / height) of the crop
TRIES = 10  # before the crop falls back to the centre
CHANCE = 0.5  # of the flip, and of each operation once it is drawn
MAGNITUDES = 10  # the scale on which a magnitude is given
GREY = (128, 128, 128)  # what a moved picture leaves behind
# At full magnitude; the operations of the paper's public implementation have these ranges.
_SHEAR = 0.3  # columns per row, or rows per column
_SHIFT = 10 / 224  # of the picture's side: ten pixels where the paper's encoders look
_DEGREES = 30.0
Operation = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True, slots=True)
class View:
    """`number` 0 is the deterministic view; `seed` (128 bits) is what the others draw from."""

    number: int
    seed: int

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose ("frames", "pixels", "mask"); those of another do not depend on them.

        Draw with `random()` alone: NumPy promises the bits of PCG64, and `random()` is the thinnest layer over them.
        """
        return np.random.Generator(np.random.PCG64(_digest("draw", format(self.seed, "032x"), purpose)))


VIEW_0 = View(0, 0)


def view_of(digest: str, number: int, seed: int) -> View:
    """View `number` of the medium whose bytes have that digest, under the augmentation seed `seed`."""
    return View(number, _digest("view", digest, number, seed)) if number else VIEW_0


def _digest(*parts: str | int) -> int:
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts))).digest()[:_SEED_BYTES], "big")


@dataclass(frozen=True, slots=True)
class PixelDraw:
    """One draw: the crop as fractions of a frame's height and width, and what is done to it after resizing.

    `operations` are names of `OPERATIONS` with their magnitudes in −1 … 1; only geometric ones are ever negative.
    """

    top: float
    left: float
    height: float
    width: float
    flipped: bool
    operations: tuple[tuple[str, float], ...]

    def apply(self, picture: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
        """(H, W, 3) uint8 → (height, width, 3) uint8, of the size given as (height, width)."""
        rows = _stretch(self.top, self.height, picture.shape[0])
        columns = _stretch(self.left, self.width, picture.shape[1])
        image = Image.fromarray(np.ascontiguousarray(picture[rows, columns]))
        image = image.resize(size[::-1], Image.Resampling[interpolation.upper()])
        if self.flipped:
            image = ImageOps.mirror(image)
        for name, magnitude in self.operations:
            image = OPERATIONS[name](image, magnitude)
        return np.array(image)


@dataclass(frozen=True, slots=True)
class PixelAugmentation:
    """Random resized crop, horizontal flip and RandAugment, for pictures and clips.

    `scale` is the range of the crop's area as a part of the picture's (0 < low ≤ high ≤ 1); `operations` are drawn with
    replacement, and each is applied with `CHANCE`, at `magnitude` of 10.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = True
    operations: int = 2
    magnitude: int = 7

    def draw(self, rng: np.random.Generator, height: int, width: int) -> PixelDraw:
        """A draw for a picture of `height` × `width` pixels."""
        top, left, rows, columns = self._crop(rng.random((TRIES, 4)).tolist(), height, width)
        flipped = self.flip and rng.random() < CHANCE
        names = list(OPERATIONS)
        operations = []
        for which, applied, sign in rng.random((self.operations, 3)).tolist():
            name = names[_index(which, len(names))]
            if applied < CHANCE:
                signed = -1.0 if name in _SIGNED and sign < CHANCE else 1.0
                operations.append((name, signed * self.magnitude / MAGNITUDES))
        return PixelDraw(top / height, left / width, rows / height, columns / width, flipped, tuple(operations))

    def describe(self) -> dict[str, Any]:
        """All that decides the draws, as JSON."""
        return {
            "augmentation": "random resized crop, flip, randaugment",
            **asdict(self),
            "scale": list(self.scale),
            "ratio": list(RATIO),
            "chance": CHANCE,
            "set": list(OPERATIONS),
        }

    def _crop(self, tries: list[list[float]], height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in pixels, as torchvision's RandomResizedCrop defines them."""
        low, high = self.scale
        narrow, wide = math.log(RATIO[0]), math.log(RATIO[1])
        for area_at, ratio_at, top_at, left_at in tries:
            area = height * width * (low + (high - low) * area_at)
            ratio = math.exp(narrow + (wide - narrow) * ratio_at)
            columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                return _index(top_at, height - rows + 1), _index(left_at, width - columns + 1), rows, columns
        rows = min(height, max(1, round(width / RATIO[0])))
        columns = min(width, max(1, round(height * RATIO[1])))
        return (height - rows) // 2, (width - columns) // 2, rows, columns


@dataclass(frozen=True, slots=True)
class SpecAugment:
    """One mask over mel bins and one over frames, of at most `frequency` bins and `time` frames; 0 and 0 is off."""

    frequency: int = 24
    time: int = 96

    def apply(self, bank: np.ndarray, rng: np.random.Generator, masked_to: float = 0.0) -> np.ndarray:
        """(frames, mels) float32 → a copy with what is masked at the value `masked_to`."""
        frames, mels = bank.shape
        bins_at, first_bin_at, frames_at, first_frame_at = rng.random(4).tolist()
        masked = bank.copy()
        masked[:, _mask(bins_at, first_bin_at, self.frequency, mels)] = masked_to
        masked[_mask(frames_at, first_frame_at, self.time, frames)] = masked_to
        return masked

    def describe(self) -> dict[str, Any]:
        """All that decides the masks, as JSON."""
        return {"augmentation": "specaugment", **asdict(self)}


def _mask(width_at: float, start_at: float, widest: int, length: int) -> slice:
    """Width uniform in 0 … widest, start uniform where it fits."""
    width = _index(width_at, min(widest, length) + 1)
    start = _index(start_at, length - width + 1)
    return slice(start, start + width)


def _index(at: float, count: int) -> int:
    """A number in [0, 1) → 0 … count − 1, each as likely."""
    return min(int(at * count), count - 1)


def _stretch(start: float, length: float, total: int) -> slice:
    """That part of `total` pixels, one at least."""
    first = min(round(start * total), total - 1)
    return slice(first, max(first + 1, min(total, first + round(length * total))))


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=GREY)


def _enhanced(enhancer: Callable[[Image.Image], Any]) -> Operation:
    """By 0.1 + 1.8 × magnitude, so that 5 of 10 changes nothing."""
    return lambda image, magnitude: enhancer(image).enhance(0.1 + 1.8 * magnitude)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda image, magnitude: image,
    "AutoContrast": lambda image, magnitude: ImageOps.autocontrast(image),
    "Equalize": lambda image, magnitude: ImageOps.equalize(image),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": lambda image, magnitude: _affine(image, 1, _SHEAR * magnitude, 0, 0, 1, 0),
    "ShearY": lambda image, magnitude: _affine(image, 1, 0, 0, _SHEAR * magnitude, 1, 0),
    "TranslateX": lambda image, magnitude: _affine(image, 1, 0, _SHIFT * magnitude * image.width, 0, 1, 0),
    "TranslateY": lambda image, magnitude: _affine(image, 1, 0, 0, 0, 1, _SHIFT * magnitude * image.height),
    "Rotate": lambda image, magnitude: image.rotate(_DEGREES * magnitude, Image.Resampling.BILINEAR, fillcolor=GREY),
}
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
