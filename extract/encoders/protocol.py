"""What an encoder is to the rest of the software: one small protocol. Knows no encoder by name."""

from typing import Any, Protocol, runtime_checkable

import torch

from epalm.extract.inputs.preprocess import Input
from epalm.samples import Modality

TOKEN_RULE = "final LayerNorm of each block's output at position 0"


class Encoder(Protocol):
    """A frozen perceptual encoder and the input that it reads."""

    kind: str
    modality: Modality
    depth: int  # blocks
    width: int  # D
    input: Input
    device: torch.device
    precision: str  # of the matrix products: float32, or bfloat16 or float16 under autocast

    def describe(self) -> dict[str, Any]:
        """What decides its numbers, as JSON: kind, architecture, digest of the weights, token rule.

        Never a path or a Hub name: the same weights are the same encoder wherever they came from.
        """
        ...

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """`[CLS]` tokens of every block, shallow to deep, (B, depth, D), of stacked inputs (B, ...).

        The batch may lie on any device; the result lies on the encoder's.
        """
        ...


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """An encoder whose model can be trained: gradients flow through `encode` once its tensors ask for them."""

    @property
    def module(self) -> torch.nn.Module:
        """The model itself."""
        ...
