"""What a training would do, counted, and timed by a few steps; for `--plan`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from epalm.config import Config
from epalm.samples import Dataset, Sample
from epalm.train.data.batches import training_items
from epalm.train.data.features import FeatureSource
from epalm.train.prepare import checkpoint_bytes, prepare
from epalm.train.processes import ALONE, Processes
from epalm.train.step import make_optimiser, take_step

_PROBED_STEPS = 5


@dataclass(frozen=True)
class TrainPlan:
    """What a training would do. `seconds` are told from a few steps here, validation left out."""

    steps: int
    epochs: int
    warmup_steps: int
    train_items: int
    validation_items: int
    missing_samples: int
    trainable_parameters: int
    bytes: int  # to write, at most
    seconds: float
    warnings: tuple[str, ...] = ()


def plan_training(
    config: Config,
    dataset: Dataset,
    features: FeatureSource,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    device: str = "auto",
    processes: Processes = ALONE,
    sharded: bool = False,
    missing: int = 0,
) -> TrainPlan:
    """Count what `train` would do, and time a few steps; nothing is written.

    Raises:
        UsageError: as `train`.
    """
    ready = prepare(config, dataset, features, training, device, processes=processes, sharded=sharded)
    model, optimiser = ready.model.to(ready.device).train(), make_optimiser(ready.model, ready.plan)
    steps = []
    moment = time.perf_counter()
    for batch in islice(ready.batches.epoch(0), _PROBED_STEPS + 1):
        given = batch.to(ready.device)
        stepped = take_step(
            model, optimiser, given, loss_weight=ready.plan.loss_weight, parts=ready.plan.parts, processes=processes
        )
        float(stepped.loss)  # waits for it
        ended = time.perf_counter()
        steps.append(ended - moment)
        moment = ended
    each = sum(steps[1:]) / (len(steps) - 1) if len(steps) > 1 else steps[0]
    tensors = model.trainable_tensors().values()
    return TrainPlan(
        steps=ready.plan.steps,
        epochs=ready.plan.schedule.epochs,
        warmup_steps=ready.plan.schedule.warmup_steps,
        train_items=len(ready.batches.items),
        validation_items=min(len(training_items(validation)), config.eval.val_samples),
        missing_samples=missing,
        trainable_parameters=sum(tensor.numel() for tensor in tensors),
        bytes=checkpoint_bytes(tensors),
        seconds=each * ready.plan.steps,
        warnings=ready.shortfalls,
    )
