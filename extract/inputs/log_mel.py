"""Sound files → log-mel energies, as a feature extractor of transformers computes them.

A file of its own, as it needs torch: a decoding process that is sent such an input imports that before its memory is
limited. The extractor itself is at work, so that its numbers are its own; decoding and views are ours.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import ClapFeatureExtractor, WhisperFeatureExtractor

from epalm.errors import MediaError
from epalm.extract.inputs.augment import VIEW_0, SpecAugment, View
from epalm.extract.inputs.preprocess import Input
from epalm.extract.media.audio import read_waveform
from epalm.media import MediaFile
from epalm.samples import Modality

_EXTRACTORS: dict[str, Any] = {one.__name__: one for one in (ClapFeatureExtractor, WhisperFeatureExtractor)}


@dataclass(frozen=True)
class LogMelInput(Input):
    """Audio file → (V, frames, mels + 1) float32; the last column is 1 for frames of the recording, 0 for padding.

    `extractor` is a class of transformers, `settings` are what it is made with, as JSON; of a recording it gets the
    first `samples`. Views other than 0 have stretches of frequency and time at the mean of all energies.
    """

    modality = Modality.AUDIO
    extractor: str
    settings: str
    samples: int
    augmentation: SpecAugment | None = field(default_factory=SpecAugment, kw_only=True)

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        extractor, masks = _extractor(self.extractor, self.settings), self.augmentation
        rate, hop = extractor.sampling_rate, extractor.hop_length
        wave = read_waveform(medium, self.limits, rate=rate, keep=self.samples).samples
        if not len(wave):
            raise MediaError(
                "the recording is too short: it has no sample at the encoder's rate", hint="use a longer one"
            )
        bank = np.asarray(extractor(wave, sampling_rate=rate)["input_features"][0], np.float32)
        bank = bank[0] if bank.ndim == 3 else bank.T  # (frames, mels); of four equal channels, one
        if not np.isfinite(bank).all():
            raise MediaError("the recording is louder than can be computed with", hint="scale it to −1 … 1")
        real = (np.arange(len(bank)) * hop < len(wave)).astype(np.float32)[:, None]
        drawn = [masks.apply(bank, view.rng("mask"), bank.mean()) if view.number and masks else bank for view in views]
        return np.stack([np.concatenate([one, real], axis=1) for one in drawn])

    def normalise(self, raw: torch.Tensor) -> torch.Tensor:
        """As they are: the extractor has normalised them."""
        return raw.float()

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        return {"medium": "audio", "by": self.extractor, "samples": self.samples, "settings": json.loads(self.settings)}


@lru_cache(maxsize=2)
def _extractor(name: str, settings: str) -> Any:
    return _EXTRACTORS[name](**json.loads(settings))
