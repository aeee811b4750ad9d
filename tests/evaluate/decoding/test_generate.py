"""Greedy and beam search find what transformers' `generate` finds; drawing is a function of seed and name alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.evaluate.decoding.generate import Continuation, draw, generate
from epalm.evaluate.decoding.options import Sampling
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.injection import Injection
from tests.augmented_models import models, small_config, small_inputs, small_model
from tests.lm_checks import generated

NEW = 9  # tokens


def _end_with_what_is_said(model: EpalmModel, features: torch.Tensor, ids: torch.Tensor, step: int) -> None:
    """Make an id that the model does produce its `</s>`: random models would go on to the last token."""
    model.lm.config.eos_token_id = -1
    first = generate(model, features, ids, num_beams=1, max_length=ids.shape[1] + NEW)
    model.lm.config.eos_token_id = first[0][step]


@given(models(), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, NEW - 1))
@settings(max_examples=25, deadline=None)
def test_ids_are_those_of_transformers_with_the_cache_and_without(
    model: EpalmModel, batch: int, length: int, beams: int, step: int
) -> None:
    features, ids = small_inputs(model, batch, length)
    _end_with_what_is_said(model, features, ids, step)
    cached, recomputed = (
        generate(model, features, ids, num_beams=beams, max_length=length + NEW, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert cached == recomputed == generated(model, features, ids, beams, NEW, model.lm.config.eos_token_id)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_sample_that_is_done_leaves_the_batch(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(small_config(), Injection(2, 1, 3), length=2)
    features, ids = small_inputs(model, 6, 3)
    _end_with_what_is_said(model, features, ids, 1)
    alone = [generate(model, features[n : n + 1], ids[n : n + 1], num_beams=beams) for n in range(6)]
    rows: list[int] = []
    go_on = Continuation.go_on

    def counted(self: Continuation, kept: torch.Tensor, tokens: torch.Tensor) -> None:
        rows.append(len(kept))
        go_on(self, kept, tokens)

    monkeypatch.setattr(Continuation, "go_on", counted)
    together = generate(model, features, ids, num_beams=beams)
    assert together == [one for (one,) in alone]
    lengths = {len(one) for one in together}
    assert len(lengths) > 1
    assert rows == sorted(rows, reverse=True) and rows[-1] < rows[0] <= 6 * beams
    if beams == 1:
        assert sum(rows) == sum(len(one) - 1 for one in together)


def test_drawn_ids_depend_on_seed_and_name_alone() -> None:
    model = small_model(small_config(), Injection(2, 1, 3), length=2)
    features, ids = small_inputs(model, 5, 3)
    names = ["a", "b", "é", "\udce9", "e"]

    def draw(order: list[int], sampling: Sampling) -> dict[str, list[int]]:
        chosen = [names[place] for place in order]
        return dict(
            zip(chosen, generate(model, features[order], ids[order], sampling=sampling, names=chosen), strict=True)
        )

    whole = draw([0, 1, 2, 3, 4], Sampling(seed=3))
    assert draw([0, 1, 2, 3, 4], Sampling(seed=3)) == whole != draw([0, 1, 2, 3, 4], Sampling(seed=4))
    assert draw([3, 1], Sampling(seed=3)) | draw([4, 2, 0], Sampling(seed=3)) == whole
    greedy = generate(model, features, ids, num_beams=1)
    for sampling in (Sampling(temperature=1e-4), Sampling(top_p=1e-9)):
        assert list(draw([0, 1, 2, 3, 4], sampling).values()) == greedy


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [(1.0, 1.0, [0.5, 0.3, 0.15, 0.05]), (1.0, 0.7, [0.625, 0.375, 0, 0]), (0.5, 1.0, [0.685, 0.247, 0.062, 0.007])],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float, top_p: float, expected: list[float]) -> None:
    count = 20_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().expand(count, -1)
    tokens = draw(logits, numbers, temperature=temperature, top_p=top_p)
    shares = tokens.bincount(minlength=4)[[1, 3, 0, 2]] / count
    torch.testing.assert_close(shares, torch.tensor(expected), atol=1e-3, rtol=0)
