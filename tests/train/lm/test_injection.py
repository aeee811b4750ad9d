"""The injected OPT in `causal` mode: no position sees a later one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import OPTForCausalLM

from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.injection import Injection
from tests.augmented_models import VOCABULARY, all_logits, models, small_config, small_inputs, small_model


def _mask(batch: int, length: int, paddings: list[int], *, left: bool) -> torch.Tensor:
    mask = torch.ones(batch, length, dtype=torch.long)
    for row, padding in enumerate(paddings[:batch]):
        if hidden := min(padding, length - 1):
            mask[row, slice(None, hidden) if left else slice(-hidden, None)] = 0
    return mask


@given(
    models(),
    st.integers(1, 3),
    st.integers(2, 9),
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
    st.booleans(),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_later_token_changes_no_earlier_logit(
    model: EpalmModel, batch: int, length: int, paddings: list[int], left: bool, data: st.DataObject
) -> None:
    features, ids = small_inputs(model, batch, length)
    mask = _mask(batch, length, paddings, left=left)
    place = data.draw(st.integers(1, length - 1))
    other = ids.clone()
    other[:, place:] = (other[:, place:] + data.draw(st.integers(1, 20))) % (VOCABULARY - 3) + 3
    with torch.no_grad():
        before, after = (all_logits(model, features, x, mask) for x in (ids, other))
    seen = model.lm.front + place
    assert torch.isfinite(before).all()
    assert torch.equal(before[:, :seen], after[:, :seen])


@given(models(), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_padding_in_front_changes_no_logit_of_the_text(model: EpalmModel, length: int, padding: int) -> None:
    features, ids = small_inputs(model, 1, length)
    padded = torch.cat((torch.ones(1, padding, dtype=torch.long), ids), 1)
    with torch.no_grad():
        plain = model(features, ids)
        left = model(features, padded, (torch.arange(length + padding) >= padding).long().unsqueeze(0))
    torch.testing.assert_close(left[:, padding:], plain, atol=1e-5, rtol=1e-5)


def test_a_later_token_does_leak_in_reference_mode() -> None:
    model = small_model(small_config(), Injection(2, 1, 3, "reference"), length=2)
    features, ids = small_inputs(model, 2, 6)
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % (VOCABULARY - 3) + 3
    with torch.no_grad():
        before, after = model(features, ids), model(features, other)
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-6)


def test_the_modes_agree_where_every_later_block_gets_a_new_token() -> None:
    config = small_config()
    logits = []
    for attention in ("causal", "reference"):
        model = small_model(config, Injection(3, 1, 4, attention), length=2)
        torch.manual_seed(1)
        features, ids = small_inputs(model, 2, 6)
        with torch.no_grad():
            logits.append(model(features, ids))
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("embedding", [None, 8])
def test_without_prompt_and_token_it_is_plain_opt(embedding: int | None) -> None:
    config = small_config(embedding=embedding)
    model = small_model(config, Injection(2, 1, 3, blind=True))
    plain = OPTForCausalLM(config).eval()
    plain.load_state_dict(model.lm.plain.state_dict())
    features, ids = small_inputs(model, 3, 7)
    mask = _mask(3, 7, [0, 2, 4], left=True)
    with torch.no_grad():
        ours, theirs = model(features, ids, mask), plain(ids, attention_mask=mask).logits
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], atol=1e-5, rtol=1e-5)


def test_blind_hides_the_features_and_seeing_does_not() -> None:
    for blind in (True, False):
        model = small_model(small_config(), Injection(2, 1, 3, blind=blind), length=2)
        features, ids = small_inputs(model, 2, 5)
        with torch.no_grad():
            same = torch.equal(model(features, ids), model(features + 1, ids))
        assert same is blind


def test_the_schedule_is_the_published_one() -> None:
    large = Injection(6, 19, 31)
    read = [large.group_of(block) for block in range(32)]
    assert read[:19] == [None] * 19
    assert read[19:31] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert read[31] is None
    assert [Injection(1, 2, 5).group_of(block) for block in range(6)] == [None, None, 0, 0, 0, None]
    assert [Injection(4, 0, 2).group_of(block) for block in range(3)] == [0, 1, None]


def test_nothing_of_the_language_model_learns_and_its_dropout_stays_off() -> None:
    model = small_model(small_config(), Injection(2, 1, 3), length=2, mlp=True).train()
    assert not model.lm.training
    features, ids = small_inputs(model, 2, 5)
    model(features, ids).sum().backward()
    assert all(tensor.grad is None for tensor in model.lm.parameters())
    assert all(tensor.grad is not None for tensor in model.trainable_tensors().values())
    assert set(model.trainable_tensors()) == {name for name, p in model.named_parameters() if p.requires_grad}
