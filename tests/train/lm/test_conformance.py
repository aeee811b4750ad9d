"""What holds for every language model: no leak, no trace of placeholders, exact caches, the plain model below `start`.

Numbers are compared in float64; depth, windows, schedules, front positions, prompts and texts are drawn.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from epalm.errors import UsageError
from epalm.evaluate.decoding.generate import generate
from epalm.recipes.config import load_config
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.injection import Injection
from epalm.train.lm.loss import IGNORED
from epalm.train.lm.profile import find_profile, require_known_head
from tests.architectures import (
    EOS,
    FAMILIES,
    REFUSED,
    VOCABULARY,
    draw_inputs,
    draw_model,
    family_config,
    injected,
    injections,
    plain_lm,
)
from tests.lm_checks import EXACT, FLOAT32, check_cache_and_padding, check_gradients, generated

NEW = 5  # tokens
every_family = pytest.mark.parametrize("family", FAMILIES)
few = settings(max_examples=2, deadline=None)


def _all_logits(model: EpalmModel, rows: torch.Tensor, ids: torch.Tensor, placeholder: int = 0) -> torch.Tensor:
    inputs = model._with_front(model.perceive(rows), ids, None)
    inputs["input_ids"][:, : model.lm.front] = placeholder
    logits: torch.Tensor = model.lm(**inputs)
    return logits


def _gradients(model: EpalmModel) -> dict[str, torch.Tensor]:
    gradients = {name: tensor.grad for name, tensor in model.trainable_tensors().items()}
    assert all(gradient is not None for gradient in gradients.values())
    return gradients  # type: ignore[return-value]


@every_family
@given(data=st.data())
@few
@torch.no_grad()
def test_no_later_token_and_no_placeholder_is_seen(family: str, data: st.DataObject) -> None:
    model = draw_model(data, family)
    rows, ids = draw_inputs(data, model)
    logits = _all_logits(model, rows, ids)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(_all_logits(model, rows, ids, placeholder=7), logits, **EXACT)
    place = data.draw(st.integers(1, ids.shape[1] - 1))
    other = ids.clone()
    other[:, place:] = (other[:, place:] + 1) % VOCABULARY
    seen = logits.shape[1] - ids.shape[1] + place
    torch.testing.assert_close(_all_logits(model, rows, other)[:, :seen], logits[:, :seen], **EXACT)


@every_family
@given(data=st.data())
@few
@torch.no_grad()
def test_below_start_and_blind_it_is_the_plain_model(family: str, data: st.DataObject) -> None:
    blocks = data.draw(st.integers(2, 4))
    lm = plain_lm(family_config(family, blocks, window=data.draw(st.integers(3, 9))))
    model = injected(lm, data.draw(injections(blocks, start=1)))
    rows, ids = draw_inputs(data, model)
    kept: list[torch.Tensor] = []
    below = model.lm.blocks[model.lm.injection.start - 1]
    handle = below.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    seeing = model(rows, ids)
    plain = lm(ids).logits
    model.next_logits(model.perceive(rows), ids, DynamicCache())
    handle.remove()
    hidden = [one[0] if isinstance(one, tuple) else one for one in kept]
    for ours in (hidden[0], hidden[2]):  # without a cache, and with one
        torch.testing.assert_close(ours[:, -ids.shape[1] :], hidden[1], **FLOAT32)
    if max(filter(None, model.lm.profile.windows), default=ids.shape[1]) >= ids.shape[1]:
        assert not torch.allclose(seeing, plain, **FLOAT32)
    blind = injected(lm, data.draw(injections(blocks, blind=True)))
    rows, _ = draw_inputs(data, blind)
    torch.testing.assert_close(blind(rows[:1].expand(len(ids), -1, -1, -1), ids), plain, **FLOAT32)


@every_family
@given(data=st.data())
@few
@torch.no_grad()
def test_cached_is_recomputed_and_padding_on_either_side_changes_nothing(family: str, data: st.DataObject) -> None:
    model = draw_model(data, family)
    rows, ids = draw_inputs(data, model)
    first = data.draw(st.integers(1, ids.shape[1] - 1))
    # Plain attention takes its softmax in float32, where a float64 mask is infinite, and a row that sees nothing NaN.
    nearest = min(filter(None, model.lm.profile.windows), default=9) if model.lm.profile.eager else 9
    check_cache_and_padding(model, rows, ids, first, padding=data.draw(st.integers(1, min(4, nearest - 1))))


@every_family
@given(data=st.data())
@settings(max_examples=1, deadline=None)
@torch.no_grad()
def test_greedy_and_beam_ids_are_those_of_generate(family: str, data: st.DataObject) -> None:
    model = draw_model(data, family)
    rows, ids = draw_inputs(data, model, least=1)
    for beams in (1, 3):
        ours = generate(model, rows, ids, eos=EOS, num_beams=beams, max_length=ids.shape[1] + NEW)
        assert ours == generated(model, rows, ids, beams, NEW)


@every_family
@given(data=st.data())
@settings(max_examples=1, deadline=None)
def test_losses_and_gradients(family: str, data: st.DataObject) -> None:
    model = draw_model(data, family, prompt=2)
    rows, ids = draw_inputs(data, model)
    labels = ids.clone()
    labels[0, : data.draw(st.integers(0, ids.shape[1] - 1))] = IGNORED
    losses = model.losses(rows, ids, None, labels).loss
    plain = functional.cross_entropy(model(rows, ids)[:, :-1].mT, labels[:, 1:], ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(losses, plain.sum(1), **FLOAT32)
    check_gradients(model, rows, ids, labels, relative=1e-2, absolute=1e-3)


@every_family
def test_bfloat16_is_finite(family: str) -> None:
    lm = plain_lm(family_config(family), torch.bfloat16)
    model = injected(lm, Injection(2, 0, 2), length=2)
    torch.manual_seed(2)
    rows, ids = torch.randn(2, 2, 1, 6, dtype=torch.bfloat16), torch.randint(4, VOCABULARY, (2, 6))
    losses = model.losses(rows, ids, None, ids).loss
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert all(
        tensor.grad is not None and tensor.grad.isfinite().all() for tensor in model.trainable_tensors().values()
    )


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_done_is_refused_by_the_shapes_alone(family: str) -> None:
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(family_config(family))
    with pytest.raises(UsageError, match=REFUSED[family][2]):
        find_profile(lm)


def test_a_schedule_out_of_sight_of_the_text_is_refused() -> None:
    lm = plain_lm(family_config("Gemma 3", blocks=4, window=6))
    injected(lm, Injection(1, 1, 2), length=2).lm.require_sight(50)  # block 1 sees all
    injected(lm, Injection(1, 2, 3), length=2).lm.require_sight(3)
    with pytest.raises(UsageError, match="at most 6 positions back") as caught:
        injected(lm, Injection(1, 2, 3), length=2).lm.require_sight(4)
    assert caught.value.hint is not None and caught.value.hint.endswith("1, 3")


def test_a_head_that_scales_in_an_unknown_way_is_refused() -> None:
    lm = plain_lm(family_config("Granite"))
    require_known_head(lm, find_profile(lm))
    with pytest.raises(UsageError, match="unknown here"):
        require_known_head(lm, replace(find_profile(lm), scale=1.0))


@torch.no_grad()
def test_the_plain_model_stays_what_it_is_and_calls_in_threads_do_not_meet() -> None:
    lm = plain_lm(family_config("Llama"))
    rows, ids = torch.randn(8, 2, 1, 6).double(), torch.randint(4, VOCABULARY, (1, 6))
    before = lm(ids).logits
    model = injected(lm, Injection(2, 0, 2), length=2)
    assert {name for name, _ in lm.named_parameters()} == {name for name, _ in model.lm.plain.named_parameters()}
    alone = [model(row[None], ids) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda row: model(row[None], ids), rows))
    assert all(torch.equal(*both) for both in zip(alone, together, strict=True))
    assert torch.equal(lm(ids).logits, before)


@pytest.mark.parametrize("family", ["OPT", "Llama", "GPT-2", "GPT-NeoX", "Phi-3", "Qwen3 MoE"])
def test_adapters_and_lora_find_their_places(family: str) -> None:
    lm = plain_lm(family_config(family))
    config = load_config("playground", ["model.variant=epalm-ada", "model.start=0", "model.end=2", "model.tokens=2"])
    rows, ids = torch.randn(2, 2, 1, 6).double(), torch.randint(4, VOCABULARY, (2, 5))
    model = build_model(config.resolved(2), lm, 6).double()
    model.losses(rows, ids, None, ids).loss.sum().backward()
    assert all(gradient.any() for name, gradient in _gradients(model).items() if name.endswith("up.bias"))
    pytest.importorskip("peft")
    changes = {"adapters": "lora", "variant": "epalm-lin", "connector": None, "prompt": None}
    lora = config.model_copy(update={"model": config.model.model_copy(update=changes)})
    model = build_model(lora.resolved(2), lm, 6).double()
    names = [name for name in model.trainable_tensors() if name.startswith("lora.")]
    assert len(names) == 2 * 2 * len(model.lm.profile.query_value)
    model.losses(rows, ids, None, ids).loss.sum().backward()
    gradients = _gradients(model)
    assert all(gradients[name].any() for name in names if "lora_B" in name)
