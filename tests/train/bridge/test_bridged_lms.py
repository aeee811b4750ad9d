"""Language models with every bridge beside eP-ALM's: what holds of each, and the gate.

Numbers are compared in float64, of models whose every trained tensor is drawn: a shut gate would hide a leak.
"""

import pytest
import torch
from transformers import PreTrainedModel

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.evaluate.decoding.generate import generate
from epalm.recipes.config import load_config
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.bridge.registry import rule_for, with_bridge
from tests.architectures import EOS, VOCABULARY, WIDTH, family_config, plain_lm
from tests.lm_checks import EXACT, FLOAT32, check_cache_and_padding, check_gradients, generated

BLOCKS, NEW = 5, 4
LAYOUT = TokenLayout(True, (2, 2))
_MAPPED = ["bridge.queries=3", "bridge.depth=1", "bridge.inner_width=16"]
MAPPED = {
    "mapl": _MAPPED,
    "qp-l0": _MAPPED,
    "qp-inner": [*_MAPPED, "model.prompt_length=2"],
    "cross-attention": ["bridge.inner_width=16", "model.prompt_length=2"],
}
PLAIN: dict[str, list[str]] = {name: [] for name in ("limber", "mlp", "avgpool", "linear-pool", "random-tokens")}
SMALL = MAPPED | PLAIN
every_bridge = pytest.mark.parametrize("bridge", SMALL)
every_lm = pytest.mark.parametrize("family", ["OPT", "Llama", "GPT-2", "OLMo 2"])


def _lm(family: str) -> PreTrainedModel:
    return plain_lm(family_config(family, BLOCKS))


def _build(bridge: str, lm: PreTrainedModel, *overrides: str) -> EpalmModel:
    words = [f"model.bridge={bridge}", *SMALL[bridge], *overrides]
    config = with_bridge(load_config("playground", words), BLOCKS).resolved(BLOCKS)
    return build_model(config, lm, WIDTH, layout=LAYOUT).double().eval()


def _drawn(bridge: str, family: str, *overrides: str) -> EpalmModel:
    model = _build(bridge, _lm(family), *overrides)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.trainable_tensors().values():
            tensor.normal_(std=0.5)
    return model


def _inputs(model: EpalmModel, batch: int = 3, length: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, of which the first ends in padding, and ids."""
    torch.manual_seed(1)
    rows = torch.randn(batch, model.layers, LAYOUT.tokens, WIDTH).double()
    rows[0, :, 3:] = 0
    return rows, torch.randint(4, VOCABULARY, (batch, length))


@every_bridge
@every_lm
@torch.no_grad()
def test_no_later_token_and_no_other_sample_is_seen(bridge: str, family: str) -> None:
    model = _drawn(bridge, family)
    rows, ids = _inputs(model)
    logits = model(rows, ids)
    for place in range(1, ids.shape[1]):
        other = ids.clone()
        other[:, place:] = (other[:, place:] + 1) % VOCABULARY
        changed = model(rows, other)
        torch.testing.assert_close(changed[:, :place], logits[:, :place], **EXACT)
        assert not torch.allclose(changed[:, place:], logits[:, place:])
    for place in range(len(rows)):
        torch.testing.assert_close(model(rows[place : place + 1], ids[place : place + 1])[0], logits[place], **FLOAT32)
        other = rows.clone()
        other[place] += 1
        seen = (model(other, ids) - logits).abs().amax((1, 2)) > 1e-4
        assert seen.tolist() == [one == place for one in range(len(rows))]


@every_bridge
@every_lm
@torch.no_grad()
def test_cached_is_recomputed_and_padding_on_either_side_changes_nothing(bridge: str, family: str) -> None:
    model = _drawn(bridge, family)
    check_cache_and_padding(model, *_inputs(model), first=2, padding=2)


@every_bridge
@every_lm
@torch.no_grad()
def test_greedy_and_beam_ids_are_those_of_generate(bridge: str, family: str) -> None:
    model = _drawn(bridge, family)
    rows, ids = _inputs(model)
    for beams in (1, 3):
        cached, recomputed = (
            generate(model, rows, ids, eos=EOS, num_beams=beams, max_length=ids.shape[1] + NEW, use_cache=use_cache)
            for use_cache in (True, False)
        )
        assert cached == recomputed == generated(model, rows, ids, beams, NEW)


@every_bridge
@pytest.mark.parametrize(("family", "near"), [("OPT", 1e-4), ("OLMo 2", 1e-2)])  # one has parts in float32
def test_gradients_are_those_of_finite_differences(bridge: str, family: str, near: float) -> None:
    model = _drawn(bridge, family)
    rows, ids = _inputs(model, batch=2, length=4)
    check_gradients(model, rows, ids, ids, relative=near, absolute=near)


@every_lm
@torch.no_grad()
def test_a_shut_gate_and_a_blind_one_leave_the_plain_model(family: str) -> None:
    lm = _lm(family)
    rows, ids = torch.randn(2, 1, 5, WIDTH).double(), torch.randint(4, VOCABULARY, (2, 6))
    plain = lm(ids).logits
    model = _build("cross-attention", lm, "model.prompt=none")
    assert (model.lm.front, model.lm.injection.start, model.lm.injection.end) == (0, 0, BLOCKS - 3)
    torch.testing.assert_close(model(rows, ids), plain, **EXACT)
    model.trainable_tensors()["connector.gate"].fill_(0.5)
    assert not torch.allclose(model(rows, ids), plain, atol=1e-3)
    blind = _build("cross-attention", lm, "model.prompt=none", "model.blind=true")
    blind.trainable_tensors()["connector.gate"].fill_(0.5)
    torch.testing.assert_close(blind(rows, ids), plain, **EXACT)


def _tensors(*layers: str) -> list[str]:
    return [f"{name}.{kind}" for name in layers for kind in ("weight", "bias")]


_LAYER = [
    *("self_attn.in_proj_weight", "self_attn.in_proj_bias"),
    *_tensors("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2"),
]
_MAPPER = ["queries", *_tensors("down", "up"), *(f"layers.0.{name}" for name in _LAYER)]
_LINEAR = ("rows_in", "rows_out", "down", "mlp.0", "mlp.2", "query", "key", "value", "out")
KEYS = {
    "mapl": _MAPPER,
    "qp-l0": _MAPPER,
    "qp-inner": [*(f"mapper.{name}" for name in _MAPPER), "scale", "shift"],
    "limber": _tensors("0"),
    "mlp": _tensors("0", "2"),
    "avgpool": [*_tensors("inner", "outer"), "norm.weight"],
    "linear-pool": [*_tensors("inner", "outer", "pooling"), "norm.weight"],
    "random-tokens": [*_tensors("linear"), "norm.weight"],
    "cross-attention": [
        *_tensors(*_LINEAR),
        *(f"encoder.{name}" for name in _LAYER),
        *("mlp_norm.weight", "norm.weight", "gate"),
    ],
}


@every_bridge
def test_a_checkpoint_has_exactly_these_tensors(bridge: str) -> None:
    model = _build(bridge, _lm("Llama"))
    prompt = [] if bridge in ("mapl", "limber", "mlp") else ["prompt.embedding"]
    assert sorted(model.trainable_tensors()) == sorted([*(f"connector.{name}" for name in KEYS[bridge]), *prompt])
    other = _drawn(bridge, "Llama")
    other.load_trainable(dict(model.trainable_tensors()))
    rows, ids = _inputs(model)
    assert torch.equal(other(rows, ids), model(rows, ids))


@pytest.mark.parametrize(
    ("bridge", "places"),
    [
        ("mapl", (1, 0, 1, None, 32)),
        ("qp-l0", (1, 0, 1, None, 32)),
        ("qp-inner", (4, 17, 29, 29, 32)),
        ("cross-attention", (1, 17, 29, None, 0)),
    ],
)
def test_blocks_and_layers_are_the_published_ones(bridge: str, places: tuple[int | None, ...]) -> None:
    words = [f"model.bridge={bridge}", "bridge.inner_width=16"]
    config = with_bridge(load_config("playground", words), 32).resolved(32)
    model = build_model(config, plain_lm(family_config("Llama", 32)), WIDTH, layout=LAYOUT)
    one = model.lm.injection
    assert (model.layers, one.start, one.end, one.exit, one.front) == places
    if bridge == "qp-inner":
        assert [one.group_of(block) for block in range(17, 29)] == list(range(12))


@pytest.mark.parametrize("bridge", MAPPED)
def test_rows_that_it_cannot_read_are_refused_with_the_extraction_that_makes_them(bridge: str) -> None:
    config = with_bridge(load_config("playground", [f"model.bridge={bridge}"]))
    for rule in ("cls", "mean", "pooled"):
        with pytest.raises(UsageError, match=f"{bridge} reads all") as caught:
            rule_for(config, rule, TokenLayout(True, ()))
        layers = 4 if bridge == "qp-inner" else 1
        assert caught.value.hint == f"epalm extract --layers last:{layers} --tokens all"
    for rule in ("all", "pool:2x2", "time-mean"):
        assert rule_for(config, rule, LAYOUT) == rule


@pytest.mark.parametrize(("grid", "rule"), [((4, 4), "pool:2x2"), ((2, 4, 4), "pool:2x2"), ((8,), "pool:4")])
def test_neighbours_are_pooled_by_the_cache(grid: tuple[int, ...], rule: str) -> None:
    config = with_bridge(load_config("playground", ["model.bridge=avgpool"]))
    layout = TokenLayout(True, grid)
    assert rule_for(config, "all", layout) == rule_for(config, rule, layout.narrowed(rule)) == rule
    with pytest.raises(UsageError, match="avgpool reads pool:2x2 or pool:4 tokens, and these features have cls"):
        rule_for(config, "cls", TokenLayout(True, ()))
    with pytest.raises(UsageError, match="does not divide the grid of 3×3"):
        rule_for(config, "all", TokenLayout(True, (3, 3)))
