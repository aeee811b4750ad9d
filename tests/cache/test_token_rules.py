"""Token rules: what of a layer's tokens a row holds, and pooling that has the same bits wherever it is done."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from epalm.cache.token_rules import TokenLayout, require_rule
from epalm.errors import CacheError, UsageError
from tests.cache.test_feature_set import SPEC

DTYPES = st.sampled_from(["float16", "float32"])
PICTURE, CLIP, SOUND = TokenLayout(True, (4, 6)), TokenLayout(False, (2, 4, 6)), TokenLayout(False, (12,))


@st.composite
def cases(draw: st.DrawFn) -> tuple[TokenLayout, tuple[int, ...]]:
    """A layout, and factors that divide its grid."""
    cells = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    factors = tuple(draw(st.integers(1, 4)) for _ in cells)
    return TokenLayout(draw(st.booleans()), tuple(a * b for a, b in zip(cells, factors, strict=True))), factors


def drawn(layout: TokenLayout, dtype: str, seed: int, *leading: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 30, (*leading, layout.tokens, 3)).astype(dtype)
    values[np.random.default_rng(seed + 1).random(values.shape[:-1]) < 0.2] = 0  # padding
    return values


def plainly(layout: TokenLayout, values: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """The means of cells, cell by cell, in float64; tokens of zeros left out."""
    grid = values[int(layout.cls) :].astype(np.float64).reshape(*layout.grid, -1)
    cells = tuple(size // factor for size, factor in zip(layout.grid, factors, strict=True))
    means = np.zeros((*cells, values.shape[-1]))
    for cell in itertools.product(*map(range, cells)):
        place = tuple(slice(one * factor, (one + 1) * factor) for one, factor in zip(cell, factors, strict=True))
        inside = grid[place].reshape(-1, values.shape[-1])
        if len(real := inside[inside.any(axis=1)]):
            means[cell] = real.mean(axis=0)
    means = means.reshape(math.prod(cells), -1)
    return np.concatenate([values[:1], means]) if layout.cls else means


def rule_of(factors: tuple[int, ...]) -> str:
    return "pool:" + "x".join(map(str, factors))


@given(cases(), DTYPES, st.integers(0, 9999))
def test_a_pool_is_the_mean_of_each_cell(case: tuple[TokenLayout, tuple[int, ...]], dtype: str, seed: int) -> None:
    layout, factors = case
    values, rule = drawn(layout, dtype, seed), rule_of(factors)
    pooled = layout.pool(values, rule)
    assert pooled.shape == (layout.narrowed(rule).tokens, 3) and pooled.dtype == values.dtype
    tolerance = {"float16": 1e-3, "float32": 1e-5}[dtype]
    np.testing.assert_allclose(pooled, plainly(layout, values, factors), rtol=tolerance, atol=30 * tolerance)


@given(cases(), DTYPES, st.integers(0, 9999))
def test_numpy_and_torch_pool_to_the_same_bits(
    case: tuple[TokenLayout, tuple[int, ...]], dtype: str, seed: int
) -> None:
    layout, factors = case
    values = drawn(layout, dtype, seed, 2, 2)
    for rule in (rule_of(factors), "mean", "all", *(["cls"] if layout.cls else []), *_time_mean(layout)):
        ours = layout.pool(values, rule)
        assert_array_equal(ours.view("u1"), layout.pool(torch.from_numpy(values), rule).numpy().view("u1"))
        # Whatever else is pooled at the same time.
        assert_array_equal(ours[1, 0], layout.pool(np.ascontiguousarray(values[1, 0]), rule))


def _time_mean(layout: TokenLayout) -> list[str]:
    return ["time-mean"] if len(layout.grid) == 3 else []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gpu_pools_to_the_same_bits(dtype: torch.dtype) -> None:
    layout = TokenLayout(True, (15, 20))
    values = torch.randn(4, 2, layout.tokens, 64).to(dtype)
    for rule in ("mean", "pool:3x4", "pool:5x2", "cls"):
        assert torch.equal(layout.pool(values, rule), layout.pool(values.cuda(), rule).cpu())


def test_what_each_rule_leaves() -> None:
    assert (PICTURE.tokens, CLIP.tokens, SOUND.tokens, TokenLayout(True, ()).tokens) == (25, 48, 12, 1)
    left = {rule: PICTURE.narrowed(rule) for rule in ("cls", "mean", "pooled", "all", "pool:2x3")}
    assert left == {
        "cls": TokenLayout(True, ()),
        "mean": TokenLayout(False, (1,)),
        "pooled": TokenLayout(False, (1,)),
        "all": PICTURE,
        "pool:2x3": TokenLayout(True, (2, 2)),
    }
    assert CLIP.narrowed("time-mean") == TokenLayout(False, (4, 6))
    assert CLIP.narrowed("pool:2x2") == TokenLayout(False, (2, 2, 3))  # each time by itself
    assert CLIP.narrowed("pool:2x2x2") == TokenLayout(False, (1, 2, 3))
    assert SOUND.narrowed("pool:4") == TokenLayout(False, (3,))


def test_a_mean_over_time_is_one_over_each_place() -> None:
    values = drawn(CLIP, "float32", 5)
    assert_array_equal(CLIP.pool(values, "time-mean"), CLIP.pool(values, "pool:2x1x1"))


def test_padding_is_left_out_and_stays_padding() -> None:
    values = np.ones((12, 3), np.float16)
    values[5:] = 0
    assert_array_equal(SOUND.pool(values, "pool:4"), [[1] * 3, [1] * 3, [0] * 3])
    assert_array_equal(SOUND.pool(values, "mean"), [[1] * 3])


@pytest.mark.parametrize(
    ("layout", "rule", "message", "hint"),
    [
        (PICTURE, "pool:3x3", "--tokens pool:3x3 does not divide the grid of 4×6 tokens",
         "use pool:AxB with A of 1, 2, 4 and B of 1, 2, 3, 6"),
        (PICTURE, "pool:4", "does not divide the grid of 4×6", "pool:AxB"),
        (SOUND, "pool:5", "does not divide the grid of 12", "use pool:K with K of 1, 2, 3, 4, 6, 12"),
        (SOUND, "cls", "there is no [CLS] token", "mean"),
        (PICTURE, "time-mean", "for clips", "all"),
        (TokenLayout(True, ()), "mean", "no tokens but [CLS]", "cls"),
        (TokenLayout(True, ()), "pool:2", "does not divide", "use cls"),
        (PICTURE, "pool:0x2", "unknown", "pool:AxB"),
        (PICTURE, "every", "unknown", "cls, mean, pooled, all"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_with_what_can(layout: TokenLayout, rule: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        layout.narrowed(rule)
    assert message in refused.value.message and hint in str(refused.value.hint)
    with pytest.raises(UsageError):
        layout.pool(np.zeros((layout.tokens, 2), np.float32), rule)


def test_the_models_own_pooling_is_not_made_of_tokens() -> None:
    require_rule("pooled")
    with pytest.raises(UsageError, match="own pooling"):
        PICTURE.pool(np.zeros((25, 2), np.float32), "pooled")


def test_a_specification_says_what_its_tokens_are() -> None:
    one = replace(SPEC, tokens=1)
    described = {**SPEC.encoder, "layout": {"cls": True, "grid": [4, 6]}}
    everything = replace(SPEC, encoder={**described, "tokens": "all"}, tokens=25)
    assert (one.rule, one.layout) == ("cls", TokenLayout(True, ()))
    assert (everything.rule, everything.layout) == ("all", PICTURE)
    pool = replace(everything, encoder={**described, "tokens": "pool:2x2"}, tokens=7)
    assert pool.layout == TokenLayout(True, (2, 3))
    assert replace(one, encoder={**SPEC.encoder, "tokens": "mean"}).layout == TokenLayout(False, (1,))
    assert replace(SPEC, tokens=7).layout == TokenLayout(False, (7,))  # of an encoder that describes nothing


@pytest.mark.parametrize("layout", [{"cls": True}, {"cls": True, "grid": ["x"]}, [1], {"cls": True, "grid": [4, 5]}])
def test_a_description_that_contradicts_the_rows_is_refused(layout: object) -> None:
    with pytest.raises(CacheError, match="tokens"):
        _ = replace(SPEC, encoder={**SPEC.encoder, "tokens": "all", "layout": layout}, tokens=25).layout
