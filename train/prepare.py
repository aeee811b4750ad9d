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
from epalm.train.batches import Batch, Batches, training_items
from epalm.train.build import build_model, load_lm, load_text_format
from epalm.train.features import FeatureSource, TrainableSource, frozen_features
from epalm.train.few_shot import few_shot
from epalm.train.model import EpalmModel
from epalm.train.schedule import Schedule
from epalm.train.step import Plan
from epalm.train.text import TextFormat

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


def prepare(
    config: Config, dataset: Dataset, features: FeatureSource, training: Sequence[Sample], device: str
) -> Prepared:
    """Load the language model and build everything around it; nothing is written.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
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
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized)
    text = load_text_format(config.lm.name, lm)
    config = config.resolved(lm.config.num_hidden_layers)
    loaded = digest_tensors(lm.state_dict())  # before anything is put into it
    model = build_model(config, lm, features.width, encoder)
    model.lm.checkpointing = config.optim.checkpointing
    if config.optim.compiled:
        model.lm.compile_blocks()
    batches = _batches(config, items, text, features)
    steps = config.optim.epochs * len(batches)
    steps = min(steps, config.optim.max_steps or steps)
    return Prepared(config, loaded, text, model, batches, _plan(config, steps, len(batches)), where)


def _batches(config: Config, items: Sequence[Any], text: TextFormat, features: FeatureSource) -> Batches:
    return Batches(
        items,
        text,
        features,
        tokens=config.model.tokens,
        batch_size=config.optim.batch_size,
        seed=config.optim.seed,
        loss_on=config.optim.loss_on,
    )


def validation_batches(
    config: Config, samples: Sequence[Sample], text: TextFormat, features: FeatureSource
) -> list[Batch]:
    """The same batches for every validation: a random part of the samples, in random order."""
    items = training_items(samples)
    chosen = np.random.default_rng(config.optim.seed).permutation(len(items))[: config.eval.val_samples]
    batches = _batches(config, [items[place] for place in chosen], text, features)
    return list(batches.epoch(0, augmented=False)) if items else []


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
        optim.loss_scale,
        validate_every=config.eval.every_steps,
    )


def checkpoint_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of the checkpoints: two latest, the best, and the draft of the next; each tensor with AdamW's two moments."""
    one = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return 4 * (3 * one + _BESIDE_TENSORS)
