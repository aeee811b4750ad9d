"""How an encoder computes: device, precision, compiled or not. Knows torch; knows no encoder by name."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from epalm.errors import UsageError

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Compute:
    """Weights stay float32; `precision` is that of the matrix products, under autocast.

    `compiled` has torch.compile make kernels for the blocks: minutes once, then faster; rounding may differ.
    """

    device: torch.device
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision!r} is unknown", hint=f"use {', '.join(PRECISIONS)}")

    def place(self, model: Any, blocks: Iterable[nn.Module]) -> Any:
        """The model where it computes; its blocks compiled if that is wanted."""
        if self.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # patches are cut by a convolution
        if self.compiled:
            for block in blocks:
                # The forward alone: hooks on the block stay outside of what is compiled.
                block.forward = torch.compile(block.forward)
        return model.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """What a forward pass runs in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))
