"""Video baseline: the image ViT on each frame, its `[CLS]` tokens averaged over the frames per block."""

from typing import Any

import torch

from epalm.extract.encoders.vit import ViT
from epalm.extract.inputs.preprocess import Input, VideoInput
from epalm.samples import Modality

DEFAULT_FRAMES = 8


class FrameAverage:
    """Frames know nothing of each other or of their order."""

    kind = "vit-frames"
    modality = Modality.VIDEO

    def __init__(self, vit: ViT, frames: int) -> None:
        self._vit = vit
        self.input: Input = VideoInput(vit.pixels, frames)
        self.depth, self.width = vit.depth, vit.width
        self.device, self.precision = vit.device, vit.precision

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        inner = self._vit.describe()
        return {**inner, "kind": self.kind, "token": f"{inner['token']}, mean over frames"}

    @property
    def module(self) -> torch.nn.Module:
        """See `TrainableEncoder`."""
        return self._vit.module

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Clips (B, T, 3, H, W) → (B, depth, D)."""
        tokens = self._vit.encode(batch.flatten(0, 1))  # (B·T, depth, D)
        frames: torch.Tensor = tokens.unflatten(0, (batch.shape[0], batch.shape[1]))
        return frames.mean(dim=1)
