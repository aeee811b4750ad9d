"""What a training would do, counted, and timed by a few steps; for `--plan`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from epalm.cache.exchange.taking_in import require_room
from epalm.cache.store import Cache
from epalm.config import Config
from epalm.samples import Dataset, Sample
from epalm.train.data.batches import training_items
from epalm.train.data.features import FeatureSource
from epalm.train.prepare import checkpoint_bytes, prepare, validation_batches
from epalm.train.processes import ALONE, Processes
from epalm.train.step import make_optimiser, take_step
from epalm.train.trunk import require_trunk
from epalm.train.trunk_use import Lacking, drawn_batches, lacking_rows

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
    trunk_bytes: int = 0  # to write into the cache
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
    trunk: Cache | None = None,
) -> TrainPlan:
    """Count what `train` would do, and time a few steps; nothing is written.

    Raises:
        UsageError: as `train`.
        CacheError: the rows of the trunk would not fit into the cache.
    """
    ready = prepare(config, dataset, features, training, device, processes=processes, sharded=sharded)
    model, optimiser = ready.model.to(ready.device).train(), make_optimiser(ready.model, ready.plan)
    rows = Lacking(0, 0)
    if trunk is not None:
        require_trunk(model)
        fixed = validation_batches(ready.config, validation, ready.text, features, processes)
        rows = lacking_rows(trunk, ready, drawn_batches(ready, fixed))
        require_room(rows.bytes, trunk.objects.free_bytes(), trunk.where)
    each_token, steps = 0.0, []
    moment = time.perf_counter()
    for batch in islice(ready.batches.epoch(0), _PROBED_STEPS + 1):
        given = batch.to(ready.device)
        began = time.perf_counter()
        if trunk is not None:
            hidden = model.lm.trunk(given.input_ids[:, :-1])
            float(hidden.sum())  # waits for it
            given = replace(given, trunk=hidden)
        middle = time.perf_counter()
        stepped = take_step(
            model, optimiser, given, loss_scale=ready.plan.loss_scale, parts=ready.plan.parts, processes=processes
        )
        float(stepped.loss)  # waits for it
        each_token = (middle - began) / given.input_ids.numel()
        ended = time.perf_counter()
        steps.append(ended - moment - (middle - began))
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
        seconds=each * ready.plan.steps + each_token * rows.tokens,
        trunk_bytes=rows.bytes,
        warnings=ready.shortfalls,
    )
