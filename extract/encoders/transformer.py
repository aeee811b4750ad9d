"""Any stack of blocks as an `Encoder`: one token of each block, taken while the model runs.

An encoder's file finds the parts of its model and calls them a `Backbone`: the blocks, the last norm, how many special
tokens stand in front, which tokens are padding, the model's own pooling. `TransformerEncoder` does the rest:

    backbone = Backbone(model=model, blocks=model.layers, norm=model.layernorm, width=768, special=1, cls=True)
    return TransformerEncoder(choice, backbone, reads, compute, architecture)

A backbone without `[CLS]` token has `special=0, cls=False`; inputs of variable length add `real=`, which says which
tokens are no padding. Knows no model by name.

Letters: B media, N tokens of a block, D hidden size.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, EncoderChoice
from epalm.extract.inputs.preprocess import Input
from epalm.weights import freeze

TOKEN_RULE = "final LayerNorm of each block's output at position 0"  # as sets of 0.1 have it


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The parts of a model that tokens are taken from.

    Its blocks put out hidden states (B, N, D), or tuples that begin with them. `norm` is the last norm, which each
    block's output passes, also where the library norms the pooled token alone. The first `special` tokens are no part
    of the medium: `[CLS]` (the first of them, with `cls`), distillation and register tokens.

    `run` is the forward pass [default: the model itself]. `real` gives for a batch of its inputs which of the N −
    `special` tokens are no padding (B, N − special), bool. `pool` is the model's own pooling with its norms: the hidden
    states (B, N, D) and what `real` gave, or None → (B, D).
    """

    model: nn.Module
    blocks: Sequence[nn.Module]
    norm: Callable[[torch.Tensor], torch.Tensor]
    width: int  # D
    special: int
    cls: bool
    run: Callable[[torch.Tensor], object] | None = None
    real: Callable[[torch.Tensor], torch.Tensor] | None = None
    pool: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None = None

    def rule(self, asked: str | None) -> str:
        """The token rule: what is asked for, by default `cls`, or `mean` where there is no `[CLS]` token.

        Raises UsageError where the model does not have it.
        """
        if asked == "cls" and not self.cls:
            raise UsageError("this encoder has no [CLS] token", hint="use --tokens mean")
        if asked == "pooled" and self.pool is None:
            hint = f"use --tokens {'cls, which it takes instead' if self.cls else 'mean'}"
            raise UsageError("this encoder has no pooling of its own", hint=hint)
        return asked or ("cls" if self.cls else "mean")

    def describe_rule(self, rule: str) -> str:
        """The rule in words, as feature sets record it."""
        if rule == "cls":
            return TOKEN_RULE
        if rule == "pooled":
            return "the model's own norm and pooling of each block's output"
        return f"mean over positions from {self.special} on, without padding, of the final norm of each block's output"


class BlockTokens:
    """Hooks that keep one token of each block's output, so that memory does not grow with the number of tokens."""

    def __init__(self, backbone: Backbone, rule: str = "cls") -> None:
        self._backbone, self._rule = backbone, rule
        self._of = threading.local()  # several threads may run the model, each on a batch of its own
        for block in backbone.blocks:
            block.register_forward_hook(self._take)

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        """The tokens of every block, shallow to deep (B, depth, D), of one forward pass."""
        one = self._backbone
        self._of.real = one.real(inputs) if one.real and self._rule != "cls" else None
        self._of.taken = []
        (one.run or one.model)(inputs)
        tokens, self._of.taken, self._of.real = torch.stack(self._of.taken, dim=1), [], None
        return tokens

    def _take(self, _block: nn.Module, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # (B, N, D)
        self._of.taken.append(self._token(hidden, self._of.real))

    def _token(self, hidden: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        one = self._backbone
        if self._rule == "cls":
            return one.norm(hidden[:, 0].clone())  # a view would keep all of it
        if self._rule == "pooled" and one.pool:
            return one.pool(hidden, real)
        normed = one.norm(hidden[:, one.special :])
        if real is None:
            return normed.mean(dim=1)
        # Padding may hold anything: left out, not multiplied by zero.
        return normed.masked_fill(~real[..., None], 0).sum(dim=1) / real.sum(dim=1, keepdim=True)


class LastMap(nn.Module):
    """A network as one block: the map that it ends in, channels along an axis, as tokens (B, N, D)."""

    def __init__(self, features: Callable[[torch.Tensor], torch.Tensor], axis: int) -> None:
        super().__init__()
        self._features, self._axis = features, axis

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...) → (B, N, D)."""
        hidden = self._features(inputs).movedim(self._axis, -1)
        return hidden.flatten(1, -2)


@torch.inference_mode()
def try_out(
    model: nn.Module, blocks: Sequence[nn.Module], run: Callable[[torch.Tensor], object], example: torch.Tensor
) -> tuple[list[tuple[int, ...]], object]:
    """The shape of what each block puts out for an example, and what the model then ends in.

    Raises UsageError where it cannot read the example.
    """
    shapes: list[tuple[int, ...]] = []

    def note(_block: nn.Module, _inputs: object, output: Any) -> None:
        shapes.append(tuple(getattr(output[0] if isinstance(output, tuple) else output, "shape", ())))

    hooks = [block.register_forward_hook(note) for block in blocks]
    model.float().eval()
    try:
        end = run(example)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        fault = f"a {type(model).__name__} does not read inputs of shape {tuple(example.shape[1:])}: {error}"
        raise UsageError(fault, hint="choose another; see docs/encoders.md") from error
    finally:
        for hook in hooks:
            hook.remove()
    return shapes, end


class TransformerEncoder:
    """A frozen model whose blocks give the tokens; it can be trained, too (see `TrainableEncoder`).

    `architecture` is all that decides its numbers beside weights, token rule and precision, as JSON. With
    `mean_of_frames` the model reads pictures and the encoder clips, whose frames know nothing of each other or of their
    order: their tokens are averaged.
    """

    def __init__(
        self,
        choice: EncoderChoice,
        backbone: Backbone,
        reads: Input,
        compute: Compute,
        architecture: dict[str, Any],
        *,
        mean_of_frames: bool = False,
    ) -> None:
        """Raises UsageError where the model has no token of the kind that the choice asks for."""
        model: Any = backbone.model
        self.kind, self.modality, self.input = choice.kind, reads.modality, reads
        self.depth, self.width = len(backbone.blocks), backbone.width
        self.device, self.precision, self.tokens = compute.device, compute.precision, backbone.rule(choice.tokens)
        rule = backbone.describe_rule(self.tokens)
        rule = f"{rule}, mean over frames" if mean_of_frames else rule
        self._description = {"kind": self.kind, "architecture": architecture, "weights": freeze(model), "token": rule}
        if self.tokens != "cls":  # sets of 0.1 had no other, and keep their names
            self._description["tokens"] = self.tokens
        if compute.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # patches are cut by a convolution
        if compute.compiled:
            for block in backbone.blocks:
                block.forward = torch.compile(block.forward)  # alone: hooks stay outside of what is compiled
        self.module: nn.Module = model.to(compute.device)
        self._mean, self._blocks = mean_of_frames, BlockTokens(backbone, self.tokens)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return dict(self._description)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...), as `input` normalises them, → (B, depth, D)."""
        inputs = batch.to(self.device)
        pictures = inputs.flatten(0, 1) if self._mean else inputs
        lower = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision)) if lower else nullcontext():
            tokens = self._blocks.of(pictures)
        return tokens.unflatten(0, inputs.shape[:2]).mean(dim=1) if self._mean else tokens
