"""The training loss: cross-entropy summed over a sample's tokens, averaged over samples (eP-ALM, section 4).

Logits are made for a few positions at a time, and what the loss and its gradient need of them is taken on the way: at
no time is there more than a bounded number of them, whatever batch, length and vocabulary.

Letters: B batch, N positions that have a label, T text length, E width of the head's input, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

IGNORED = -100  # label of what is not predicted
MOST_LOGITS = 1 << 22  # at a time: 16 MiB of them, and as much for what is made of them
# Small gradients of single logits would be lost in float16: the head's product has this factor, its result has not.
_FLOAT16_SCALE = 1024.0


class LabelPositions(NamedTuple):
    """The positions whose next token has a label."""

    positions: torch.Tensor  # (N,) int64, in the flattened positions of all samples
    samples: torch.Tensor  # (N,) int64
    targets: torch.Tensor  # (N,) int64, the next tokens
    batch_size: int  # B


class Losses(NamedTuple):
    """Of each sample: its loss in nats, and whether no other token is likelier than any of its targets."""

    loss: torch.Tensor  # (B,)
    exact: torch.Tensor  # (B,) bool


def label_positions(labels: torch.Tensor, width: int) -> LabelPositions:
    """The positions of samples with labels (B, T) whose next token has one; `width` (≤ T) positions are there."""
    samples, before = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return LabelPositions(samples * width + before, samples, labels[samples, before + 1], len(labels))


class Head(NamedTuple):
    """What makes logits of hidden states: those behind a linear layer times `scale`, then cap · tanh(logits / cap)."""

    weight: torch.Tensor  # (V, E)
    bias: torch.Tensor | None = None  # (V,)
    scale: float = 1.0
    cap: float | None = None


def sample_losses(hidden: torch.Tensor, head: Head, labels: LabelPositions, smoothing: float = 0.0) -> Losses:
    """Of the head's input (N, E) at the positions with labels.

    `smoothing`: such a share of what is to be predicted is spread over all tokens (Szegedy et al., 2016, section 7).
    """
    how = head.scale, head.cap, smoothing
    losses, likeliest = _TokenLosses.apply(hidden, head.weight, head.bias, labels.targets, *how)
    zeros = losses.new_zeros(labels.batch_size)
    wrong = zeros.index_add(0, labels.samples, (~likeliest).to(zeros.dtype))
    return Losses(zeros.index_add(0, labels.samples, losses), wrong == 0)


class _TokenLosses(torch.autograd.Function):
    """Head's input (N, E), the head's parts, targets (N,) → losses (N,), whether the target is the likeliest (N,)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        scale: float,
        cap: float | None,
        smoothing: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses = hidden.new_empty(len(hidden), dtype=_precise(hidden))
        likeliest = torch.empty_like(targets, dtype=torch.bool)
        # With a frozen head all but the factor of each loss is known here; else the logits are made once more.
        ready = ctx.needs_input_grad[0] and not any(ctx.needs_input_grad[1:3])
        gradient = torch.empty_like(hidden, dtype=losses.dtype) if ready else None
        head = Head(weight, bias, scale, cap)
        for piece in _pieces(hidden, weight):
            of_logits, losses[piece], likeliest[piece] = _cross_entropy(hidden[piece], head, targets[piece], smoothing)
            if gradient is not None:
                gradient[piece] = _through_head(of_logits, weight)
        ctx.mark_non_differentiable(likeliest)
        ctx.dtype, ctx.scaling, ctx.smoothing = hidden.dtype, (scale, cap), smoothing
        ctx.save_for_backward(gradient, *(() if ready else (hidden, weight, bias, targets)))
        return losses, likeliest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        gradient, *given = ctx.saved_tensors
        if not given:
            return (gradient * outer[:, None]).to(ctx.dtype), None, None, None, None, None, None
        hidden, weight, bias, targets = given
        to_hidden, to_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        to_bias = None if bias is None else torch.zeros_like(bias)
        for piece in _pieces(hidden, weight):
            head = Head(weight, bias, *ctx.scaling)
            of_logits = _cross_entropy(hidden[piece], head, targets[piece], ctx.smoothing)[0].mul_(outer[piece, None])
            to_weight.addmm_(of_logits.to(weight.dtype).T, hidden[piece])
            if to_bias is not None:
                to_bias += of_logits.sum(0)
            to_hidden[piece] = _through_head(of_logits, weight)
        return to_hidden, to_weight, to_bias, None, None, None, None


def _pieces(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    rows = max(1, MOST_LOGITS // len(weight))
    return (slice(start, start + rows) for start in range(0, len(hidden), rows))


def _cross_entropy(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Its gradient with regard to what the linear layer gives (N, V), losses (N,), whether the target is the likeliest.

    In float32 or more. With regard to the logits it is the probabilities, less what is to be predicted: one at the
    target, or with `smoothing` a little less, and the rest everywhere.
    """
    logits = torch.nn.functional.linear(hidden, head.weight, head.bias).to(_precise(hidden))
    if head.scale != 1:
        logits *= head.scale
    slope = None
    if head.cap is not None:
        logits = logits.div_(head.cap).tanh_()
        slope = 1 - logits.square()
        logits *= head.cap
    own = logits.gather(1, targets[:, None])
    predicted = own.lerp(logits.mean(1, keepdim=True), smoothing) if smoothing else own
    highest = logits.amax(1, keepdim=True)
    exponentials = logits.sub_(highest).exp_()
    total = exponentials.sum(1, keepdim=True)
    losses = total.log() + highest - predicted
    gradient = exponentials.div_(total)
    gradient[torch.arange(len(targets), device=targets.device), targets] -= 1 - smoothing
    if smoothing:
        gradient -= smoothing / logits.shape[1]
    if head.scale != 1:
        gradient *= head.scale
    if slope is not None:
        gradient *= slope
    return gradient, losses.squeeze(1), (own >= highest).squeeze(1)


def _through_head(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The logits' gradient (N, V) as the hidden states' (N, E)."""
    if weight.dtype != torch.float16:
        return (gradient.to(weight.dtype) @ weight).to(gradient.dtype)
    return ((gradient * _FLOAT16_SCALE).half() @ weight).to(gradient.dtype) / _FLOAT16_SCALE


def _precise(values: torch.Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
