"""Pictures of any proportions as patches, at most so many, for encoders that read these: NaFlex of SigLIP 2.

As the processor of transformers makes them, whose default is torchvision.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.inputs.preprocess import ImageInput, Pixels
from epalm.extract.inputs.processors import preprocessing_settings, require_usable, statistics
from epalm.extract.media.image import read_image
from epalm.media import MediaFile

if TYPE_CHECKING:
    import torch

_PRECISION, _LARGEST = 1e-5, 100.0  # of the scale, as the processor searches it


@dataclass(frozen=True)
class PatchInput(ImageInput):
    """Image file → (V, 1 + P, 3·side²) uint8: rows and columns of its patches, two bytes each; then the patches.

    Normalised (B, 1 + P, 3·side²) float32: rows and columns; then the patches, zeros behind the last. A picture keeps
    its proportions, and `pixels.size` is that of the square with P patches.
    """

    side: int = field(kw_only=True)  # of a patch

    @property
    def patches(self) -> int:
        """P, the most that a picture has."""
        height, width = self.pixels.size
        return height * width // self.side**2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patches of a picture of that size: as many as there may be."""
        low, high = _PRECISION / 10, _LARGEST
        while high - low >= _PRECISION:
            scale = (low + high) / 2
            if self._cells(height, scale) * self._cells(width, scale) <= self.patches:
                low = scale
            else:
                high = scale
        return self._cells(height, low), self._cells(width, low)

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        picture, (height, width), _ = read_image(medium, self.limits)
        (rows, columns), side, fit = self.grid(height, width), self.side, self.pixels.fit
        size, interpolation = (rows * side, columns * side), self.pixels.interpolation
        assert fit
        fit = replace(fit, to=size)
        raw = np.zeros((len(views), 1 + self.patches, 3 * side**2), np.uint8)
        for number, view in enumerate(views):
            draw = self._draw(view, height, width)
            fitted = draw.apply(picture, size, interpolation) if draw else fit(picture, size, interpolation)
            raw[number, 0, :4] = *divmod(rows, 256), *divmod(columns, 256)
            cut = fitted.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
            raw[number, 1 : 1 + rows * columns] = cut.reshape(rows * columns, -1)
        return raw

    def normalise(self, raw: "torch.Tensor") -> "torch.Tensor":
        """See the class."""
        values = raw.float()
        grids = values[:, 0, [0, 2]] * 256 + values[:, 0, [1, 3]]  # (B, 2)
        mean, std = (values.new_tensor(one).repeat(self.side**2) for one in (self.pixels.mean, self.pixels.std))
        values.div_(255).sub_(mean).div_(std)
        values[:, 0] = 0
        values[:, 0, :2] = grids
        values[:, 1:].masked_fill_(~real_patches(values)[..., None], 0)
        return values

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        return {**super().describe(), "patches": self.patches, "side": self.side}

    def _cells(self, length: int, scale: float) -> int:
        return max(1, math.ceil(length * scale / self.side))


@preprocessing_settings()
def naflex_input(processor: Any) -> PatchInput:
    """What an encoder of patches reads, as its image processor of transformers makes it.

    Raises UsageError: its settings cannot be used.
    """
    from epalm.extract.inputs.fit_tensor import TensorFit

    side = int(processor.patch_size)
    wide = math.isqrt(processor.max_num_patches)
    while processor.max_num_patches % wide:
        wide -= 1
    size = processor.max_num_patches // wide * side, wide * side
    interpolation: Any = Image.Resampling(int(processor.resample)).name.lower()
    pixels = Pixels(size, interpolation, *statistics(processor), TensorFit("both", size))
    require_usable(pixels)
    return PatchInput(pixels, side=side)


def real_patches(inputs: "torch.Tensor") -> "torch.Tensor":
    """Of normalised inputs (B, 1 + P, …), which patches are none of padding (B, P), bool."""
    import torch

    counts = inputs[:, 0, :2].prod(dim=1, keepdim=True)
    return torch.arange(inputs.shape[1] - 1, device=inputs.device) < counts
