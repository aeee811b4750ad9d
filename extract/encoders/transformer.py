"""Any transformer with a `[CLS]` token as an `Encoder`: the tokens of all its blocks, taken while it runs.

Knows that blocks put out hidden states (B, N, D), `[CLS]` token at position 0; knows no model by name.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from epalm.errors import UsageError
from epalm.extract.inputs.preprocess import Input
from epalm.samples import Modality
from epalm.weights import freeze

TOKEN_RULE = "final LayerNorm of each block's output at position 0"
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Compute:
    """Where and how an encoder computes.

    Weights stay float32; `precision` is that of the matrix products, under autocast. `compiled` has torch.compile make
    kernels for the blocks: minutes once, then faster; rounding may differ.
    """

    device: torch.device
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision!r} is unknown", hint=f"use {', '.join(PRECISIONS)}")

    def place(self, model: Any, blocks: Iterable[nn.Module]) -> Any:
        """The model on the device; its blocks compiled if that is wanted."""
        if self.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # patches are cut by a convolution
        if self.compiled:
            for block in blocks:
                # The forward alone: hooks on the block stay outside of what is compiled.
                block.forward = torch.compile(block.forward)
        return model.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))


class ClsTokens:
    """Hooks that keep each block's output at position 0 (method: `[CLS]` tokens of eP-ALM).

    Only position 0 is kept, so memory does not grow with the number of patches.
    """

    def __init__(self, blocks: Iterable[nn.Module], norm: nn.Module) -> None:
        self._norm = norm
        self._of = threading.local()  # several threads may run the model, each on a batch of its own
        for block in blocks:
            block.register_forward_hook(self._take)

    def _take(self, _block: nn.Module, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # (B, N, D)
        self._of.taken.append(hidden[:, 0].clone())  # a view would keep all of it

    def of(self, run: Callable[[], object]) -> torch.Tensor:
        """The tokens of every block, shallow to deep (B, depth, D), of one forward pass, `run`.

        Each is the model's final LayerNorm applied to the block's output, not for the last block only.
        """
        self._of.taken = []
        run()
        tokens: torch.Tensor = self._norm(torch.stack(self._of.taken, dim=1))
        self._of.taken = []
        return tokens


class TransformerEncoder:
    """A frozen model whose `blocks` give the tokens; it can be trained, too (see `TrainableEncoder`).

    `architecture` is all that decides its numbers beside weights and precision, as JSON. `run` is its forward pass
    [default: the model itself]. With `mean_of_frames` the model reads pictures and the encoder clips, whose frames
    know nothing of each other or of their order: their tokens are averaged.
    """

    def __init__(
        self,
        kind: str,
        modality: Modality,
        model: Any,
        blocks: Iterable[nn.Module],
        norm: nn.Module,
        *,
        reads: Input,
        width: int,
        architecture: Mapping[str, Any],
        compute: Compute,
        run: Callable[[torch.Tensor], object] | None = None,
        mean_of_frames: bool = False,
    ) -> None:
        blocks = list(blocks)
        self.kind, self.modality, self.input = kind, modality, reads
        self.depth, self.width = len(blocks), width
        self.device, self.precision = compute.device, compute.precision
        self._architecture, self._compute, self._mean = dict(architecture), compute, mean_of_frames
        self._weights = freeze(model)
        self._model: Any = compute.place(model, blocks)
        self._run = run or self._model
        self._tokens = ClsTokens(blocks, norm)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        rule = f"{TOKEN_RULE}, mean over frames" if self._mean else TOKEN_RULE
        return {"kind": self.kind, "architecture": self._architecture, "weights": self._weights, "token": rule}

    @property
    def module(self) -> nn.Module:
        """See `TrainableEncoder`."""
        module: nn.Module = self._model
        return module

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...), as `input` normalises them, → (B, depth, D)."""
        inputs = batch.to(self.device)
        with self._compute.autocast():
            if not self._mean:
                return self._tokens.of(lambda: self._run(inputs))
            tokens = self._tokens.of(lambda: self._run(inputs.flatten(0, 1)))  # (B·T, depth, D)
            frames: torch.Tensor = tokens.unflatten(0, inputs.shape[:2])
        return frames.mean(dim=1)
