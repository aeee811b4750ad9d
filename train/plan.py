"""What a training would do, counted, and timed by a few steps; for `--plan`."""

import time
from dataclasses import dataclass
from itertools import islice

from epalm.train.data.batches import training_items
from epalm.train.run import checkpoint_bytes
from epalm.train.setup import Setup
from epalm.train.step import make_optimiser, take_step

_TIMED_STEPS = 5


@dataclass(frozen=True)
class TrainPlan:
    """What a training would do. `seconds` are estimated from a few steps here, validation left out."""

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


def plan_training(setup: Setup) -> TrainPlan:
    """Count what `train` would do, and time a few steps; nothing is written."""
    hyper, material, model = setup.hyper, setup.resolved.material, setup.model.to(setup.device).train()
    optimiser, seconds = make_optimiser(model, hyper), []
    moment = time.perf_counter()
    for batch in islice(setup.batches.epoch(0), _TIMED_STEPS + 1):
        stepped = take_step(
            model,
            optimiser,
            batch.to(setup.device),
            loss_weight=hyper.loss_weight,
            micro_batches=hyper.micro_batches,
            processes=setup.processes,
        )
        float(stepped.loss)  # waits for it
        seconds.append(time.perf_counter() - moment)
        moment = time.perf_counter()
    each = sum(seconds[1:]) / (len(seconds) - 1) if len(seconds) > 1 else seconds[0]
    tensors = model.trainable_tensors().values()
    return TrainPlan(
        steps=hyper.steps,
        epochs=hyper.schedule.epochs,
        warmup_steps=hyper.schedule.warmup_steps,
        train_items=len(setup.batches.items),
        validation_items=min(len(training_items(material.validation)), setup.config.eval.val_samples),
        missing_samples=material.missing,
        trainable_parameters=sum(tensor.numel() for tensor in tensors),
        bytes=checkpoint_bytes(tensors),
        seconds=each * hyper.steps,
        warnings=setup.warnings,
    )
