"""The loop gives each group of tensors its own learning rate; a step smooths, clips and drops out as it is told."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from epalm.recipes.config import load_config
from epalm.train import loop
from epalm.train.bridge.build import build_model
from epalm.train.data.batches import Batch
from epalm.train.lm.load import load_lm
from epalm.train.lm.processes import ALONE
from epalm.train.loop import TrainState, Validation, make_optimiser, take_step, train_model


class Same:
    """One batch, again and again."""

    processes = ALONE

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 3

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        yield from [self._batch] * 3


@pytest.mark.parametrize("reverse", [False, True])
def test_the_connectors_rate_is_on_the_schedule_whichever_group_it_is(reverse: bool) -> None:
    optim = {"epochs": 1, "warmup_steps": 2, "warmup_lr": 0.1, "peak_lr": 0.3, "fixed_lr": 0.01}
    words = ["model.variant=epalm-ada", *(f"optim.{key}={value}" for key, value in optim.items())]
    config = load_config("playground", words).resolved(8)
    model = build_model(config, load_lm("playground"), 3)
    optimiser = make_optimiser(model, config.optim)
    if reverse:
        optimiser.param_groups.reverse()
    rates: list[dict[str, float]] = []
    optimiser.register_step_pre_hook(
        lambda one, *_: rates.append({group["name"]: group["lr"] for group in one.param_groups})
    )
    ids = torch.randint(4, 100, (2, 5))
    batches: Any = Same(Batch(torch.randn(2, model.layers, 1, 3), ids, None, ids, 2, 2))
    kept: dict[str, Any] = {"report": lambda _: None, "save": lambda _: None, "stop": lambda: False}
    train_model(model, optimiser, batches, [], config, start=TrainState(), **kept)
    assert [one["connector"] for one in rates] == pytest.approx([0.1, 0.2, 0.3])
    assert {one["fixed"] for one in rates} == {0.01}


def test_a_validation_that_gave_no_number_is_not_the_best_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("playground", ["optim.epochs=1", "eval.every_steps=1"]).resolved(8)
    model = build_model(config, load_lm("playground"), 3)
    ids = torch.randint(4, 100, (2, 5))
    batches: Any = Same(Batch(torch.randn(2, model.layers, 1, 3), ids, None, ids, 2, 2))
    losses = iter((math.nan, 2.0, math.nan))
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(next(losses), 0.0, 1))
    kept: dict[str, Any] = {"report": lambda _: None, "save": lambda _: None, "stop": lambda: False}
    optimiser = make_optimiser(model, config.optim)
    state = train_model(model, optimiser, batches, [], config, start=TrainState(), **kept)
    assert state.best is not None and (state.best.loss, state.best_step) == (2.0, 2)


def test_gradients_are_clipped_all_together_and_losses_smoothed() -> None:
    """With plain descent at a rate of one, the way that the tensors go is as long as the gradient."""
    ids = torch.randint(4, 100, (2, 5))
    moved, losses = [], []
    for words in ([], ["optim.clip_norm=0.5"], ["optim.label_smoothing=0.2"]):
        config = load_config("playground", ["optim.loss_weight=1.0", *words]).resolved(8)
        model = build_model(config, load_lm("playground"), 3).train()
        torch.manual_seed(0)
        batch = Batch(torch.randn(2, model.layers, 1, 3), ids, None, ids, 2, 2)
        tensors = model.trainable_tensors()
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        optimiser = torch.optim.SGD(tensors.values(), lr=1.0)
        losses.append(float(take_step(model, optimiser, batch, config.optim)[0]))
        moved.append({name: before[name] - tensor.detach() for name, tensor in tensors.items()})
    long, short = (torch.cat([way.flatten() for way in one.values()]) for one in moved[:2])
    assert long.norm() > 0.5
    torch.testing.assert_close(short, long * (0.5 / long.norm()), atol=1e-5, rtol=1e-3)
    assert losses[0] == losses[1] != losses[2]


@torch.no_grad()
def test_dropout_is_for_training_and_drawn_by_seed_and_step() -> None:
    config = load_config("playground", ["model.dropout=0.5"]).resolved(8)
    model, plain = (
        build_model(one, load_lm("playground"), 3) for one in (config, load_config("playground").resolved(8))
    )
    rows = torch.randn(4, model.layers, 1, 3)
    assert torch.equal(model.eval().perceive(rows), plain.perceive(rows))
    model.train()
    drawn = []
    for key in ((0, 1), (0, 2), (1, 1), (0, 1)):
        model.begin_step(*key)
        drawn.append(model.perceive(rows))
    kept = drawn[0] != 0
    assert 0.4 < kept.float().mean() < 0.6
    torch.testing.assert_close(drawn[0][kept], 2 * plain.perceive(rows)[kept])
    assert torch.equal(drawn[0], drawn[3]) and not any(torch.equal(drawn[0], other) for other in drawn[1:3])
