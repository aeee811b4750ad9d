"""Any stack of blocks as an `Encoder`: tokens of each block, taken while the model runs.

An encoder's file finds the parts of its model and calls them a `Backbone`: the blocks, the last norm, how many special
tokens stand in front, the grid of the others, which of them are padding, the model's own pooling. `TransformerEncoder`
does the rest:

    backbone = Backbone(model=model, blocks=model.layers, norm=model.layernorm, width=768, special=1, cls=True,
                        grid=(14, 14))
    return TransformerEncoder(choice, backbone, reads, compute, architecture)

A backbone without `[CLS]` token leaves `special=` and `cls=` out; inputs of variable length add `real=`, which says
which tokens are no padding. Knows no model by name.

Letters: B media, F frames, N tokens of a block, L layers, T tokens of a row's layer, D hidden size.
"""

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from epalm.cache.token_rules import CLS, MEAN, POOLED, TokenLayout
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
    of the medium: `[CLS]` (the first of them, with `cls`), distillation and register tokens. The others are those of
    `grid`, the last axis fastest, or are once `arrange` has put them (B, N − special, D) in that order; where there are
    fewer, the rest of the grid is padding.

    `run` is the forward pass [default: the model itself]. `real` gives for a batch of its inputs which of the N −
    `special` tokens are no padding (B, N − special), bool. `pool` is the model's own pooling with its norms: the hidden
    states (B, N, D) and what `real` gave, or None → (B, D).
    """

    model: nn.Module
    blocks: Sequence[nn.Module]
    norm: Callable[[torch.Tensor], torch.Tensor]
    width: int  # D
    grid: tuple[int, ...]
    special: int = 0
    cls: bool = False
    arrange: Callable[[torch.Tensor], torch.Tensor] | None = None
    run: Callable[[torch.Tensor], object] | None = None
    real: Callable[[torch.Tensor], torch.Tensor] | None = None
    pool: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None = None

    def rule(self, asked: str | None) -> str:
        """The token rule: what is asked for, by default `cls`, or `mean` where there is no `[CLS]` token.

        Raises UsageError where the model has no pooling of its own.
        """
        if asked == POOLED and self.pool is None:
            hint = f"use --tokens {'cls, which it takes instead' if self.cls else 'mean'}"
            raise UsageError("this encoder has no pooling of its own", hint=hint)
        return asked or (CLS if self.cls else MEAN)

    def describe_rule(self, rule: str) -> str:
        """The rule in words, as feature sets record it."""
        if rule == CLS:
            return TOKEN_RULE
        if rule == POOLED:
            return "the model's own norm and pooling of each block's output"
        return (
            f"positions from {self.special} on, zeros for padding, of the final norm of each block's output, as stored"
        )


class BlockTokens:
    """Hooks that keep of each block's output what a token rule takes, so that memory holds no more than that."""

    def __init__(self, backbone: Backbone, rule: str = CLS, frames: int | None = None) -> None:
        """With `frames`, each medium is so many inputs, one behind the other.

        Their tokens are the medium's, but for `[CLS]` and what the model pools: these are averaged. Raises UsageError
        where the model has no such tokens.
        """
        self._backbone, self._rule, self._frames = backbone, rule, frames
        grid = backbone.grid if frames is None else (frames, *backbone.grid)
        self.full = TokenLayout(backbone.cls, grid)
        self.layout = self.full.narrowed(rule)
        self._taken_from = TokenLayout(backbone.cls and rule != MEAN, grid)  # what is made before it is pooled
        self._pass = threading.local()  # several threads may run the model, each on a batch of its own
        for number, block in enumerate(backbone.blocks):
            block.register_forward_hook(partial(self._take, number))

    def of(
        self, inputs: torch.Tensor, layers: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """The tokens of some blocks [default: all] (B, L, T, D), of one forward pass.

        Means are taken of tokens that were rounded to `dtype`, which is theirs, too.
        """
        backbone = self._backbone
        layers = range(len(backbone.blocks)) if layers is None else layers
        self._pass.real = backbone.real(inputs) if backbone.real and self._rule != CLS else None
        self._pass.taken, self._pass.dtype = dict.fromkeys(layers), dtype
        (backbone.run or backbone.model)(inputs)
        tokens = torch.stack([self._pass.taken[layer] for layer in layers], dim=1)
        self._pass.taken, self._pass.real = {}, None
        return tokens

    def _take(self, number: int, _block: nn.Module, _inputs: Any, output: Any) -> None:
        if number in self._pass.taken:
            hidden = output[0] if isinstance(output, tuple) else output  # (B, N, D)
            self._pass.taken[number] = self._tokens(hidden, self._pass.real)

    def _tokens(self, hidden: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        """What the rule takes of hidden states (B, N, D): (B, T, D)."""
        backbone = self._backbone
        if self._rule == CLS:
            return self._over_frames(backbone.norm(hidden[:, 0].clone()))  # a view would keep all of it
        if self._rule == POOLED and backbone.pool:
            return self._over_frames(backbone.pool(hidden, real))
        tokens = backbone.norm(hidden[:, backbone.special :])
        if real is not None:
            tokens = tokens.masked_fill(~real[..., None], 0)  # padding may hold anything
        if backbone.arrange:
            tokens = backbone.arrange(tokens)
        tokens = tokens.unflatten(0, (-1, self._frames)).flatten(1, 2) if self._frames else tokens
        tokens = nn.functional.pad(tokens, (0, 0, 0, math.prod(self.full.grid) - tokens.shape[1]))
        if self._taken_from.cls:
            tokens = torch.cat([self._over_frames(backbone.norm(hidden[:, 0].clone())), tokens], dim=1)
        # A copy: later blocks may change their input in place.
        pooled: torch.Tensor = self._taken_from.pool(tokens.float().to(self._pass.dtype, copy=True), self._rule)
        return pooled

    def _over_frames(self, tokens: torch.Tensor) -> torch.Tensor:
        """One token of each medium (B, 1, D), the mean over its frames where it has some."""
        frames = self._frames
        return tokens.unflatten(0, (-1, frames)).mean(dim=1, keepdim=True) if frames else tokens[:, None]


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
    `of_frames` the model reads pictures and the encoder clips, whose frames know nothing of each other or of their
    order: their `[CLS]` tokens are averaged.
    """

    def __init__(
        self,
        choice: EncoderChoice,
        backbone: Backbone,
        reads: Input,
        compute: Compute,
        architecture: dict[str, Any],
        *,
        of_frames: int | None = None,
    ) -> None:
        """Raises UsageError where the model has no tokens of the kind that the choice asks for."""
        model: Any = backbone.model
        self.kind, self.modality, self.input = choice.kind, reads.modality, reads
        self.depth, self.width = len(backbone.blocks), backbone.width
        self.device, self.precision, self.tokens = compute.device, compute.precision, backbone.rule(choice.tokens)
        self._frames, self._blocks = of_frames, BlockTokens(backbone, self.tokens, of_frames)
        self.layout, full = self._blocks.layout, self._blocks.full
        of_one = ", mean over frames" if of_frames else ""
        rule = backbone.describe_rule(self.tokens) + (of_one if self.tokens in (CLS, POOLED) else "")
        self._description = {"kind": self.kind, "architecture": architecture, "weights": freeze(model), "token": rule}
        if self.tokens != CLS:  # sets of 0.1 had no other, and keep their names
            self._description["tokens"] = self.tokens
        if self.tokens not in (CLS, POOLED):
            self._description["layout"] = {"cls": full.cls, "grid": list(full.grid)}
            self._description |= {"cls_token": TOKEN_RULE + of_one} if full.cls else {}
        if compute.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # patches are cut by a convolution
        if compute.compiled:
            for block in backbone.blocks:
                block.forward = torch.compile(block.forward)  # alone: hooks stay outside of what is compiled
        self.module: nn.Module = model.to(compute.device)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return dict(self._description)

    def encode(
        self, batch: torch.Tensor, layers: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """See `Encoder`; `layers` [default: all]."""
        inputs = batch.to(self.device)
        inputs = inputs.flatten(0, 1) if self._frames else inputs
        lower = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision)) if lower else nullcontext():
            return self._blocks.of(inputs, layers, dtype)
