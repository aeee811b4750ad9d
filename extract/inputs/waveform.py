"""Sound files → waveforms, at the rate of the encoder and no longer than it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.errors import MediaError
from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.inputs.preprocess import Input
from epalm.extract.media.audio import read_waveform
from epalm.media import MediaFile
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-7  # of the variance


@dataclass(frozen=True)
class WaveformInput(Input):
    """Audio file → (V, samples) float32, its first `samples` or all of it with NaN behind: nothing is drawn for views.

    Normalised (B, samples): of mean 0 and variance 1 over what is there, with `unit`; NaN stays. A recording of fewer
    than `least` samples is refused.
    """

    modality = Modality.AUDIO
    rate: int  # Hz
    samples: int
    least: int
    unit: bool

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        wave = read_waveform(medium, self.limits, rate=self.rate, keep=self.samples).samples
        if len(wave) < self.least:
            fault = f"the recording is too short: {len(wave)} samples, where the encoder takes {self.least}"
            raise MediaError(fault, hint="use a longer one")
        if not np.isfinite(np.vdot(wave, wave)):
            raise MediaError("the recording is louder than can be computed with", hint="scale it to −1 … 1")
        padded = np.pad(wave.astype(np.float32), (0, self.samples - len(wave)), constant_values=np.nan)
        return np.repeat(padded[None], len(views), axis=0)

    def normalise(self, raw: "torch.Tensor") -> "torch.Tensor":
        """See `Input`."""
        if not self.unit:
            return raw
        centred = raw - raw.nanmean(dim=1, keepdim=True)
        return centred / (centred.square().nanmean(dim=1, keepdim=True) + _EPSILON).sqrt()

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        return {"medium": "audio", "waveform": "mean 0, variance 1" if self.unit else "as it is", "rate": self.rate,
                "samples": self.samples}  # fmt: skip
