"""LiMBeR, LLaVA's two layers and DePALM's resamplers: the formula written out, shapes, names and sizes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.train.bridge.random_tokens import Settings
from epalm.train.bridge.registry import bridges

WIDTH, HIDDEN = 6, 8
LIMBER = ["0.weight", "0.bias"]
RESAMPLED = ["inner.weight", "inner.bias", "outer.weight", "outer.bias", "norm.weight"]
# Of each: its tensors, the grid that it is tried on, and what is published of its size, 1024 to 4096, in millions.
CASES = {
    "limber": (LIMBER, (3, 2), 4.2),
    "mlp": ([*LIMBER, "2.weight", "2.bias"], (3, 2), 21.0),
    "avgpool": (RESAMPLED, (4, 2), 21.0),
    "linear-pool": ([*RESAMPLED, "pooling.weight", "pooling.bias"], (4, 2), 88.1),
    "random-tokens": (["linear.weight", "linear.bias", "norm.weight"], (3, 2), 4.2),
}


def _built(name: str, layout: TokenLayout, width: int = WIDTH, hidden: int = HIDDEN, layers: int = 1) -> Any:
    torch.manual_seed(0)
    bridge = bridges()[name]
    built = bridge.make(layers, layout, width, hidden, **bridge.settings().model_dump())
    for tensor in built.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)  # no norm is the identity
    return built.double().eval()


def _linear(tensors: dict[str, torch.Tensor], name: str, values: torch.Tensor) -> torch.Tensor:
    return values @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * values / (values.square().mean(-1, keepdim=True) + torch.finfo(values.dtype).eps).sqrt()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cls", [True, False])
def test_the_formula_written_out(name: str, layers: int, cls: bool) -> None:
    names, grid, _ = CASES[name]
    layout = TokenLayout(cls, grid)
    built = _built(name, layout, layers=layers)
    tensors = dict(built.named_parameters())
    assert sorted(tensors) == sorted(names)
    rows = torch.randn(3, layers, layout.tokens, WIDTH, dtype=torch.float64)
    if name in ("limber", "mlp"):
        expected = _linear(tensors, "0", rows)
        expected = _linear(tensors, "2", functional.gelu(expected)) if name == "mlp" else expected
    elif name == "random-tokens":
        expected = _linear(tensors, "linear", _norm(rows, tensors["norm.weight"]))
    else:
        expected = _linear(tensors, "inner", rows)
        if name == "linear-pool":  # cell by cell
            first, height, width = int(cls), *grid
            cells = [
                torch.cat([expected[:, :, first + (y + dy) * width + x + dx] for dy in (0, 1) for dx in (0, 1)], -1)
                for y in range(0, height, 2)
                for x in range(0, width, 2)
            ]
            pooled = _linear(tensors, "pooling", torch.stack(cells, 2))
            expected = torch.cat((expected[:, :, :first], pooled), 2)
        expected = _linear(tensors, "outer", _norm(expected, tensors["norm.weight"]))
    groups = built(rows)
    assert groups.shape == (3, built.groups, built.front, HIDDEN)
    torch.testing.assert_close(groups, expected.flatten(1, 2).unsqueeze(1))


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_the_published_ones(name: str) -> None:
    layout = TokenLayout(True, (16, 16))
    with torch.device("meta"):
        built = _built(name, layout, 1024, 4096)
    assert round(sum(tensor.numel() for tensor in built.parameters()) / 1e6, 1) == CASES[name][2]


def test_means_of_rows_are_means_behind_the_first_layer() -> None:
    """What `avgpool` makes of pooled rows is what the paper makes of all of them."""
    layout = TokenLayout(True, (4, 6))
    rows = torch.randn(2, 1, layout.tokens, WIDTH, dtype=torch.float64)
    built = _built("avgpool", layout.narrowed("pool:2x2"))
    tensors = dict(built.named_parameters())
    inner = _linear(tensors, "inner", rows)
    means = inner[:, 0, 1:].mT.unflatten(2, (4, 6))
    means = functional.avg_pool2d(means, 2).flatten(2).mT
    expected = _linear(tensors, "outer", _norm(torch.cat((inner[:, 0, :1], means), 1), tensors["norm.weight"]))
    pooled = layout.pool(rows, "pool:2x2")  # in float32, as it is stored
    torch.testing.assert_close(built(pooled)[:, 0], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("grid", "cells"), [((8,), [[0, 1, 2, 3], [4, 5, 6, 7]]), ((2, 2, 2), [[0, 1, 2, 3], [4, 5, 6, 7]])]
)
def test_sound_is_mapped_by_fours_and_clips_at_each_time(grid: tuple[int, ...], cells: list[list[int]]) -> None:
    built = _built("linear-pool", TokenLayout(False, grid))
    rows = torch.randn(1, 1, 8, WIDTH, dtype=torch.float64)
    alone = torch.cat([built(rows[:, :, cell])[:, 0] for cell in cells], 1) if len(grid) == 1 else None
    other = rows.clone()
    other[:, :, cells[1]] += 1
    one, two = built(rows)[0, 0], built(other)[0, 0]
    assert torch.equal(one[0], two[0]) and not torch.allclose(one[1], two[1])
    assert alone is None or torch.allclose(alone[0], one)


@pytest.mark.parametrize("grid", [(), (3, 4), (6,)])
def test_a_grid_that_does_not_divide_is_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="linear-pool makes one token of") as caught:
        _built("linear-pool", TokenLayout(True, grid))
    assert caught.value.hint == "--bridge limber reads any"


def test_random_tokens_are_in_order_and_a_pure_function_of_their_generator() -> None:
    layout = TokenLayout(True, (8, 8))
    built = _built("random-tokens", layout)
    rows = torch.randn(2, 1, layout.tokens, WIDTH, dtype=torch.float64)
    every = built(rows)
    counts = []
    for seed in range(300):
        built.draw(np.random.default_rng([7, seed]))
        built.train()
        groups = built(rows)
        built.draw(np.random.default_rng([7, seed]))
        assert torch.equal(built(rows), groups)
        places = [(every[0, 0] == token).all(1).nonzero().item() for token in groups[0, 0]]
        assert places[0] == 0 and places == sorted(set(places))
        counts.append(len(places) - 1)
        assert torch.equal(built.eval()(rows), every)
    assert min(counts) == 4 and max(counts) == 32  # a sixteenth and a half of 64
    assert 12 < np.mean(counts) < 24
    assert counts.count(32) > 300 * 0.1  # one time in ten, and where more was drawn


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be above bridge"):
        Settings(least=0.6)
