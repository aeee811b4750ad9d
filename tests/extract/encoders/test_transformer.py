"""The token rules on a model that is small enough to follow: blocks that add their number."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from epalm.errors import UsageError
from epalm.extract.encoders.transformer import Backbone, BlockTokens, try_out

WIDTH, SPECIAL = 4, 2


class Adds(nn.Module):
    """A block that adds a number to hidden states (B, N, D)."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
        return hidden + self.number, None


class Stack(nn.Module):
    """Blocks one behind the other."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Adds(number + 1) for number in range(depth))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            hidden, _ = block(hidden)
        return hidden


def _backbone(**options: Any) -> Backbone:
    model = Stack(3)
    parts: dict[str, Any] = {"norm": nn.Identity(), "width": WIDTH, "special": SPECIAL, "cls": True, "grid": (5,)}
    return Backbone(model=model, blocks=list(model.blocks), **parts | options)


def _real(inputs: torch.Tensor) -> torch.Tensor:
    return ~inputs[:, SPECIAL:, 0].isnan()


def test_means_leave_out_special_tokens_and_padding_of_any_value() -> None:
    inputs = torch.randn(2, SPECIAL + 5, WIDTH)
    inputs[0, SPECIAL + 3 :] = torch.nan
    tokens = BlockTokens(_backbone(real=_real), "mean").of(inputs)[:, :, 0]
    alone = [inputs[0, SPECIAL : SPECIAL + 3].mean(dim=0), inputs[1, SPECIAL:].mean(dim=0)]
    expected = torch.stack(alone)[:, None] + torch.tensor([1.0, 3.0, 6.0])[:, None]
    torch.testing.assert_close(tokens, expected)


def test_pooling_gets_hidden_states_and_what_is_padding() -> None:
    seen: list[torch.Tensor | None] = []

    def pool(hidden: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        seen.append(real)
        return hidden[:, -1]

    inputs = torch.randn(2, SPECIAL + 5, WIDTH)
    tokens = BlockTokens(_backbone(real=_real, pool=pool), "pooled").of(inputs)[:, :, 0]
    torch.testing.assert_close(tokens[:, 0], inputs[:, -1] + 1)
    assert all(real is not None and real.all() for real in seen)


@pytest.mark.parametrize("rule", ["cls", "mean"])
def test_no_hidden_states_are_kept(rule: str) -> None:
    """A view of a token would keep those of all of them, block by block."""
    kept: list[torch.Tensor] = []

    class Watched(BlockTokens):
        def _take(self, number: int, _block: nn.Module, inputs: Any, output: Any) -> None:
            super()._take(number, _block, inputs, output)
            kept.append(self._pass.taken[number])

    Watched(_backbone(grid=(100,)), rule).of(torch.randn(2, SPECIAL + 100, WIDTH))
    assert [one.untyped_storage().nbytes() for one in kept] == [2 * WIDTH * 4] * 3


def test_threads_keep_their_batches_apart() -> None:
    tokens = BlockTokens(_backbone(real=_real), "mean")
    batches = [torch.full((2, SPECIAL + 5, WIDTH), float(number)) for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(tokens.of, batches))
    for number, result in enumerate(results):
        torch.testing.assert_close(result[:, 0, 0], torch.full((2, WIDTH), number + 1.0))


def test_what_a_model_does_not_have_is_refused() -> None:
    assert _backbone().rule(None) == "cls" and _backbone(special=0, cls=False).rule(None) == "mean"
    with pytest.raises(UsageError, match=r"no \[CLS\] token"):
        BlockTokens(_backbone(cls=False), "cls")
    with pytest.raises(UsageError, match="no pooling of its own"):
        _backbone().rule("pooled")


def test_a_model_is_tried_out() -> None:
    backbone = _backbone()
    shapes, end = try_out(backbone.model, backbone.blocks, backbone.model, torch.zeros(1, 7, WIDTH))
    assert shapes == [(1, 7, WIDTH)] * 3 and isinstance(end, torch.Tensor)
    assert not any(block._forward_hooks for block in backbone.blocks)
    with pytest.raises(UsageError, match="a Linear does not read inputs of shape"):
        try_out(nn.Linear(3, 3), [], nn.Linear(3, 3), torch.zeros(1, 7))
