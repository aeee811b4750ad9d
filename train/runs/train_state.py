"""Where a training stands, and what a checkpoint keeps of it so that it goes on as if it had never stopped.

Nothing in a step draws random numbers today: order, views and targets are functions of seed, epoch and position. The
states of the generators are kept all the same, so that this also holds for what will draw.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from epalm.train.bridge.model import EpalmModel
from epalm.train.runs.checkpoints import TRAINABLE, Checkpoint

_OPTIMISER, _RANDOM = "optimiser", "random"


@dataclass(frozen=True, slots=True)
class Validation:
    """Of the validation samples: mean loss in nats, and the share whose every target token is the likeliest."""

    loss: float
    exact: float
    samples: int


@dataclass(frozen=True, slots=True)
class TrainState:
    """After `step` steps: the next batch is number `position` of `epoch`, both from 0. `seconds` of training so far.

    `validation` is the latest, `best` the one with the least loss, after `best_step` steps; None before the first.
    Without anything to validate on, every checkpoint is the best.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    validation: Validation | None = None
    best: Validation | None = None
    best_step: int | None = None

    def without_best(self) -> "TrainState":
        """Where the best checkpoint is not there any more: the next validation is the best."""
        return replace(self, best=None, best_step=None)


def parts_of(model: EpalmModel, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a checkpoint by part: trained ones, the optimiser's by "kind.tensor", random generators."""
    states = {
        f"{kind}.{name}": value
        for name, tensor in model.trainable_tensors().items()
        for kind, value in optimiser.state.get(tensor, {}).items()
    }
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    trained: dict[str, torch.Tensor] = {**model.trainable_tensors()}
    return {TRAINABLE: trained, _OPTIMISER: states, _RANDOM: generators}


def record_of(state: TrainState, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """What `state.json` says of the training: where it stands, and the learning rate of each group of tensors."""
    return {**asdict(state), "lr": {group["name"]: group["lr"] for group in optimiser.param_groups}}


def restore(checkpoint: Checkpoint, model: EpalmModel, optimiser: torch.optim.Optimizer) -> TrainState:
    """Put a checkpoint's tensors into model, optimiser and random generators; where the training stands then.

    Raises:
        ValueError: it is another model's.
    """
    own = model.trainable_tensors()
    model.load_trainable(checkpoint.tensors(TRAINABLE))
    saved: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in checkpoint.tensors(_OPTIMISER).items():
        kind, _, name = key.partition(".")
        saved.setdefault(name, {})[kind] = value
    names = {id(tensor): name for name, tensor in own.items()}
    order = [names[id(tensor)] for group in optimiser.param_groups for tensor in group["params"]]
    groups = optimiser.state_dict()["param_groups"]
    for group in groups:
        group["lr"] = checkpoint.state["lr"][group["name"]]
    states = {place: saved[name] for place, name in enumerate(order) if name in saved}
    optimiser.load_state_dict({"state": states, "param_groups": groups})
    generators = checkpoint.tensors(_RANDOM)
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])
    return _state(checkpoint.state)


def _state(told: Mapping[str, Any]) -> TrainState:
    plain = {field.name: told[field.name] for field in fields(TrainState)}
    for name in ("validation", "best"):
        plain[name] = Validation(**plain[name]) if plain[name] else None
    return TrainState(**plain)
