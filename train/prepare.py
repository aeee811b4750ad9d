"""Everything that a training needs, loaded and built: model, batches, plan. Writes nothing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from epalm.config import Config
from epalm.devices import pick_device
from epalm.errors import UsageError
from epalm.fingerprint import digest_tensors
from epalm.samples import Dataset, Sample
from epalm.train.bridge.model import EpalmModel
from epalm.train.build import build_model, load_lm, load_text_format
from epalm.train.data.batches import Batches, training_items
from epalm.train.data.device_features import DeviceFeatures, fit_on_device, free_beside
from epalm.train.data.features import CachedFeatures, FeatureSource, TrainableSource, frozen_features
from epalm.train.data.few_shot import few_shot
from epalm.train.data.text import TextFormat
from epalm.train.data.text_length import require_short
from epalm.train.processes import ALONE, Processes
from epalm.train.schedule import Schedule
from epalm.train.shortfalls import length_shortfalls, schedule_shortfalls, text_shortfalls
from epalm.train.step import Plan

_BESIDE_TENSORS = 1 << 15  # bytes of a checkpoint: where the training stands, random generators, names


def chosen_samples(dataset: Dataset, config: Config, split: str) -> tuple[Sample, ...]:
    """A split's samples of the recipe's tasks."""
    return tuple(sample for sample in dataset.split(split) if sample.task in config.data.tasks)


def samples_of(dataset: Dataset, config: Config) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Training samples, only a few where the recipe says so, and validation samples. Raises UsageError: too few."""
    data = config.data
    training = chosen_samples(dataset, config, data.train_split)
    few = few_shot(training, data.few_shot, seed=config.optim.seed, balanced=data.balanced)
    return few, chosen_samples(dataset, config, data.val_split)


@dataclass(frozen=True)
class Prepared:
    """A training with everything loaded and nothing written."""

    config: Config
    lm: str  # digest of the language model as it was loaded
    text: TextFormat
    model: EpalmModel
    batches: Batches
    plan: Plan
    device: torch.device
    shortfalls: tuple[str, ...] = ()  # what the user should know of before the first step


def prepare(
    config: Config,
    dataset: Dataset,
    features: FeatureSource,
    training: Sequence[Sample],
    device: str,
    *,
    processes: Processes = ALONE,
    workers: int = 0,
    sharded: bool = False,
) -> Prepared:
    """Load the language model and build everything around it; nothing is written.

    `workers` threads put training batches together, ahead of the step. `sharded`: the processes divide the language
    model.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    config.at_known_depth()  # a published model need not be loaded to see what does not fit it
    items = training_items(training)
    if not items:
        tasks = " or ".join(config.data.tasks)
        raise UsageError(
            f"data {dataset.spec!r} has no samples for {tasks} with answers in split {config.data.train_split!r}",
            hint="--set data.train_split=NAME and --set 'data.tasks=[\"qa\"]' choose others",
        )
    if features.layers < config.model.tokens:
        raise UsageError(
            f"the recipe wants {config.model.tokens} layers' tokens and the features have {features.layers}",
            hint=f"epalm extract --layers last:{config.model.tokens}, or --set model.tokens={features.layers}",
        )
    encoder = None
    if config.encoder.train:
        if not isinstance(features, TrainableSource):
            raise frozen_features()
        encoder = features.encoder
    where = pick_device(device)
    if sharded:
        from epalm.train.lm.sharding import require_shardable, shard_lm  # a second, for what few need

        require_shardable(config, processes)
    empty = sharded and not processes.first
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized, empty=empty)
    text = load_text_format(config.lm.name, lm)
    require_short(training, text, lm.config.max_position_embeddings)
    config = config.resolved(lm.config.num_hidden_layers)
    config = config.model_copy(update={"optim": config.optim.fitted(len(items))})
    loaded = "" if empty else digest_tensors(lm.state_dict())  # before anything is put into it
    if sharded:
        loaded = processes.from_first(loaded)
    model = build_model(config, lm, features.width, encoder)
    model.lm.gradient_checkpointing = config.optim.gradient_checkpointing
    if config.optim.compiled:
        model.lm.compile_blocks()
    if sharded:
        shard_lm(lm, where, processes)
    on_device = None
    if isinstance(features, CachedFeatures) and fit_on_device(
        features, training, config.model.tokens, free_beside(model, where)
    ):
        on_device = DeviceFeatures(features, training, tokens=config.model.tokens, device=where)
    gpu = where if where.type == "cuda" else None
    batches = _batches(config, items, text, features, processes, workers=workers, pinned_for=gpu, on_device=on_device)
    steps = config.optim.epochs * len(batches)
    steps = min(steps, config.optim.max_steps or steps)
    plan = _plan(config, steps, len(batches))
    shortfalls = (
        *schedule_shortfalls(plan.schedule, steps, len(batches), config.optim.max_steps),
        *length_shortfalls(*batches.decoded_lengths(), config.decode.max_length, lm.config.max_position_embeddings),
        *text_shortfalls(training, text),
    )
    return Prepared(config, loaded, text, model, batches, plan, where, shortfalls)


def _batches(
    config: Config,
    items: Sequence[Any],
    text: TextFormat,
    features: FeatureSource,
    processes: Processes,
    *,
    workers: int = 0,
    pinned_for: torch.device | None = None,
    on_device: DeviceFeatures | None = None,
) -> Batches:
    return Batches(
        items,
        text,
        features,
        tokens=config.model.tokens,
        batch_size=config.optim.batch_size,
        seed=config.optim.seed,
        loss_on=config.optim.loss_on,
        processes=processes,
        workers=workers,
        pinned_for=pinned_for,
        on_device=on_device,
    )


def validation_batches(
    config: Config,
    samples: Sequence[Sample],
    text: TextFormat,
    features: FeatureSource,
    processes: Processes = ALONE,
) -> Batches | None:
    """What epoch 0 of gives the batches of every validation: a random part of the samples; None: there are none."""
    items = training_items(samples)
    chosen = np.random.default_rng(config.optim.seed).permutation(len(items))[: config.eval.val_samples]
    return _batches(config, [items[place] for place in chosen], text, features, processes) if items else None


def _plan(config: Config, steps: int, steps_per_epoch: int) -> Plan:
    optim = config.optim
    epochs = math.ceil(steps / steps_per_epoch)
    schedule = Schedule(optim.warmup_steps, optim.warmup_lr, optim.peak_lr, optim.min_lr, epochs)
    return Plan(
        steps,
        schedule,
        optim.fixed_lr,
        optim.lm_lr,
        optim.encoder_lr,
        optim.weight_decay,
        optim.loss_weight,
        validate_every=config.eval.every_steps,
        parts=optim.micro_batches,
    )


def checkpoint_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of the checkpoints: two latest, the best, and the draft of the next; each tensor with AdamW's two moments."""
    one = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return 4 * (3 * one + _BESIDE_TENSORS)
