"""The loop gives each group of tensors its own learning rate, whatever the order of the groups."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from epalm.recipes.config import load_config
from epalm.train.bridge.build import build_model
from epalm.train.data.batches import Batch
from epalm.train.lm.load import load_lm
from epalm.train.lm.processes import ALONE
from epalm.train.loop import TrainState, make_optimiser, train_model


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
    batches: Any = Same(Batch(torch.randn(2, model.layers, 1, 3), ids, None, ids))
    kept: dict[str, Any] = {"report": lambda _: None, "save": lambda _: None, "stop": lambda: False}
    train_model(model, optimiser, batches, [], config, start=TrainState(), **kept)
    assert [one["connector"] for one in rates] == pytest.approx([0.1, 0.2, 0.3])
    assert {one["fixed"] for one in rates} == {0.01}
