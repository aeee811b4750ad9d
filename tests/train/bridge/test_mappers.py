"""MAPL's mapper, query pooling and cross-attention against their formulas, written out plainly in float64."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.recipes.config import load_config
from epalm.train.bridge.cross_attention import CrossAttention
from epalm.train.bridge.mapl import Mapper
from epalm.train.bridge.qp import InnerPooling
from epalm.train.bridge.registry import bridge_of

HEADS, WIDTH, HIDDEN, INNER = 8, 6, 10, 16
TOKENS = TokenLayout(True, (2, 2))
EXACT: Any = {"atol": 1e-10, "rtol": 1e-10}
M = TypeVar("M", bound=nn.Module)
Named = Mapping[str, torch.Tensor]


def _linear(tensors: Named, name: str, values: torch.Tensor) -> torch.Tensor:
    return values @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _gelu(values: torch.Tensor) -> torch.Tensor:
    return 0.5 * values * (1 + torch.erf(values / math.sqrt(2)))


def _rms(values: torch.Tensor, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
    eps = torch.finfo(values.dtype).eps
    return values / (values.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _layer_norm(tensors: Named, name: str, values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Of one sample, (N, W) and twice (S, W) → (N, W): by head, each query's weighted mean of the values."""
    size = queries.shape[1] // HEADS
    heads = []
    for first in range(0, HEADS * size, size):
        part = slice(first, first + size)
        weights = (queries[:, part] @ keys[:, part].T / math.sqrt(size)).exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ values[:, part])
    return torch.cat(heads, 1)


def _encoder_layer(tensors: Named, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """A post-norm layer over one sample's tokens (T, W), none of them padding."""
    inside = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items()}
    parts = tokens @ inside["self_attn.in_proj_weight"].T + inside["self_attn.in_proj_bias"]
    attended = _linear(inside, "self_attn.out_proj", _attention(*parts.chunk(3, 1)))
    tokens = _layer_norm(inside, "norm1", tokens + attended)
    return _layer_norm(inside, "norm2", tokens + _linear(inside, "linear2", _gelu(_linear(inside, "linear1", tokens))))


def _mapped(tensors: Named, layers: int, tokens: torch.Tensor) -> torch.Tensor:
    """One sample's tokens (T, D_enc) → (Q, D)."""
    queries = tensors["queries"]
    hidden = torch.cat((_linear(tensors, "down", tokens), queries))
    for layer in range(layers):
        hidden = _encoder_layer(tensors, f"layers.{layer}", hidden)
    return _linear(tensors, "up", hidden[-len(queries) :])


def _mapper(layers: int = 2, dropout: float = 0.1) -> Mapper:
    return Mapper(1, TOKENS, WIDTH, HIDDEN, inner_width=INNER, depth=layers, queries=3, dropout=dropout)


def _pooling(groups: int) -> InnerPooling:
    return _drawn(
        InnerPooling(4, TOKENS, WIDTH, HIDDEN, entered=groups, inner_width=INNER, depth=2, queries=3, dropout=0.1)
    )


def _drawn(module: M) -> M:
    """In float64 and evaluation, every tensor drawn: what starts at 0 or 1 would hide a fault."""
    torch.manual_seed(0)
    for tensor in module.double().parameters():
        nn.init.normal_(tensor, std=0.5)
    return module.eval()


def _padded(layers: int = 1) -> tuple[torch.Tensor, list[int]]:
    """Rows (3, L, 5, D_enc) of which the last tokens are padding, and how many each sample has."""
    torch.manual_seed(1)
    rows, lengths = torch.randn(3, layers, 5, WIDTH).double(), [5, 3, 1]
    for row, length in zip(rows, lengths, strict=True):
        row[:, length:] = 0
    return rows, lengths


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("graded", [False, True])
def test_queries_go_with_the_tokens_and_padding_is_left_out(layers: int, graded: bool) -> None:
    mapper = _drawn(_mapper(layers))
    rows, lengths = _padded()
    with torch.set_grad_enabled(graded):
        mapped = mapper(rows)
    assert mapped.shape == (3, 1, 3, HIDDEN)
    tensors = dict(mapper.named_parameters())
    for ours, row, length in zip(mapped, rows, lengths, strict=True):
        torch.testing.assert_close(ours[0], _mapped(tensors, layers, row[0, :length]), **EXACT)
    assert len(tensors) == 5 + 12 * layers  # their names: see the checkpoints of test_bridged_lms.py


def test_without_positions_the_order_of_tokens_is_of_no_matter() -> None:
    mapper, rows = _drawn(_mapper()), torch.randn(2, 1, 7, WIDTH).double()
    torch.testing.assert_close(mapper(rows[:, :, torch.randperm(7)]), mapper(rows), **EXACT)


@pytest.mark.parametrize(("groups", "serving"), [(12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]), (5, [0, 0, 1, 2, 3])])
def test_each_layer_serves_its_share_of_the_blocks_in_a_scale_of_their_own(groups: int, serving: list[int]) -> None:
    pooling = _pooling(groups)
    rows, lengths = _padded(layers=4)
    tensors = dict(pooling.named_parameters())
    mapper = {name.removeprefix("mapper."): tensor for name, tensor in tensors.items()}
    pooled = pooling(rows)
    assert pooled.shape == (3, groups, 3, HIDDEN)
    for ours, row, length in zip(pooled, rows, lengths, strict=True):
        for block, layer in enumerate(serving):
            expected = _rms(_mapped(mapper, 2, row[layer, :length]))
            expected = expected * tensors["scale"][block] + tensors["shift"][block]
            torch.testing.assert_close(ours[block], expected, **EXACT)


def _crossing() -> CrossAttention:
    return _drawn(CrossAttention(1, TOKENS, WIDTH, HIDDEN, inner_width=INNER, dropout=0.1))


@pytest.mark.parametrize("graded", [False, True])
def test_positions_look_at_the_tokens_through_the_gate(graded: bool) -> None:
    crossing = _crossing()
    rows, lengths = _padded()
    hidden = torch.randn(3, 4, HIDDEN).double()
    with torch.set_grad_enabled(graded):
        ours = crossing.added(hidden, crossing(rows), 0)
    tensors = dict(crossing.named_parameters())
    for sample, length in enumerate(lengths):
        tokens = _encoder_layer(tensors, "encoder", _linear(tensors, "rows_in", rows[sample, 0, :length]))
        tokens = _linear(tensors, "rows_out", tokens)
        low = _linear(tensors, "down", hidden[sample])
        low = low + _linear(tensors, "mlp.2", _gelu(_linear(tensors, "mlp.0", low)))
        queries = _linear(tensors, "query", _rms(low, tensors["mlp_norm.weight"]))
        looked = _attention(queries, _linear(tensors, "key", tokens), _linear(tensors, "value", tokens))
        update = _linear(tensors, "out", _rms(looked, tensors["norm.weight"]))
        torch.testing.assert_close(ours[sample], torch.tanh(tensors["gate"]) * update, **EXACT)


def test_a_position_looks_for_itself_and_a_fresh_gate_is_shut() -> None:
    crossing, rows = _crossing(), _padded()[0]
    memory, hidden = crossing(rows), torch.randn(3, 4, HIDDEN).double()
    together = crossing.added(hidden, memory, 0)
    for place in range(4):
        torch.testing.assert_close(crossing.added(hidden[:, place : place + 1], memory, 0)[:, 0], together[:, place])
    fresh = CrossAttention(1, TOKENS, WIDTH, HIDDEN, inner_width=INNER, dropout=0.1).double()
    assert not fresh.added(hidden, fresh(rows), 0).any()


def test_dropout_is_for_training_alone() -> None:
    rows = _padded()[0]
    modules: tuple[nn.Module, ...] = (_drawn(_mapper(dropout=0.5)), _crossing())
    for module in modules:
        assert torch.equal(module(rows), module(rows))
        assert not torch.equal(module.train()(rows), module(rows))
    still = _drawn(_mapper(dropout=0.0)).train()
    assert torch.equal(still(rows), still(rows))


@pytest.mark.parametrize(
    ("make", "published", "exactly"),
    [
        (lambda: Mapper(1, TOKENS, 1024, 4096, inner_width=256, depth=4, queries=32, dropout=0.1), "2.9", 2_906_368),
        (lambda: Mapper(1, TOKENS, 1024, 4096, inner_width=1024, depth=2, queries=32, dropout=0.1), "17.9", 17_884_160),
        (lambda: CrossAttention(1, TOKENS, 1024, 4096, inner_width=1024, dropout=0.1), "22.0", 22_044_673),
    ],
    ids=["mapl", "qp", "cross-attention"],
)
def test_parameters_are_as_many_as_published(make: Callable[[], nn.Module], published: str, exactly: int) -> None:
    with torch.device("meta"):
        count = sum(tensor.numel() for tensor in make().parameters())
    assert (f"{count / 1e6:.1f}", count) == (published, exactly)


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    for name in ("mapl", "qp-l0", "qp-inner", "cross-attention"):
        config = load_config("own", [f"model.bridge={name}", "bridge.inner_width=12"])
        with pytest.raises(UsageError, match=r"bridge\.inner_width: Input should be a multiple of 8"):
            bridge_of(config).own(config)


def test_rows_that_are_all_zeros_are_read_and_half_precision_is_taken() -> None:
    mapper, rows = _mapper().eval(), torch.randn(2, 1, 5, WIDTH)
    torch.testing.assert_close(mapper(rows.half()), mapper(rows), atol=1e-2, rtol=1e-2)
    rows[0] = 0
    assert mapper(rows).isfinite().all()
    crossing = CrossAttention(1, TOKENS, WIDTH, HIDDEN, inner_width=INNER, dropout=0.1).eval()
    hidden = torch.randn(2, 3, HIDDEN, dtype=torch.bfloat16)
    added = crossing.added(hidden, crossing(rows.half()), 0)
    assert added.dtype == hidden.dtype and added.isfinite().all()
