"""One training from settings to a run folder, and a trained model out of one. Knows every part of this stage."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm import __version__
from epalm.config import Config
from epalm.devices import pick_device
from epalm.errors import UsageError
from epalm.fingerprint import digest_json, digest_tensors
from epalm.samples import Dataset, Modality, Sample
from epalm.train.batches import Batch, Batches, training_items
from epalm.train.build import build_model, load_lm, load_text_format
from epalm.train.features import FeatureSource, TrainableSource, frozen_features
from epalm.train.few_shot import few_shot
from epalm.train.loop import Plan, Validation, make_optimiser, take_step, train_model
from epalm.train.model import EpalmModel
from epalm.train.run_folder import RunFolder, require_room
from epalm.train.schedule import Schedule
from epalm.train.text import TextFormat

_PROBED_STEPS = 5
_ENCODER = "encoder."


@dataclass(frozen=True)
class TrainSummary:
    """What a training did. Times in seconds, losses in nats per sample."""

    run: str
    steps: int
    train_items: int
    missing_samples: int
    trainable_parameters: int
    all_parameters: int
    seconds: float
    val_loss: float | None
    val_exact: float | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with what it needs to be used.

    `encoder` are the tensors of an encoder that was trained too, by the names of its module; the model takes ready
    features. `trained` is the digest of everything that was trained.
    """

    folder: RunFolder
    config: Config
    model: EpalmModel
    text: TextFormat
    inputs: dict[str, Any]
    step: int
    encoder: dict[str, torch.Tensor]
    trained: str


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
class TrainPlan:
    """What a training would do. `seconds` are told from a few steps here, validation left out."""

    steps: int
    train_items: int
    validation_items: int
    missing_samples: int
    trainable_parameters: int
    bytes: int  # to write, at most
    seconds: float


@dataclass(frozen=True)
class _Prepared:
    """A training with everything loaded and nothing written."""

    config: Config
    lm: str  # digest of the language model as it was loaded
    text: TextFormat
    model: EpalmModel
    batches: Batches
    plan: Plan
    device: torch.device


def plan_training(
    config: Config,
    dataset: Dataset,
    features: FeatureSource,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    device: str = "auto",
    missing: int = 0,
) -> TrainPlan:
    """Count what `train` would do, and time a few steps; nothing is written. Raises UsageError as `train`."""
    ready = _prepare(config, dataset, features, training, device)
    model, optimiser = ready.model.to(ready.device).train(), make_optimiser(ready.model, ready.plan)
    moments = [time.perf_counter()]
    for batch in islice(ready.batches.epoch(0), _PROBED_STEPS + 1):
        float(take_step(model, optimiser, batch.to(ready.device), loss_scale=ready.plan.loss_scale))  # waits for it
        moments.append(time.perf_counter())
    each = (moments[-1] - moments[1]) / (len(moments) - 2) if len(moments) > 2 else moments[1] - moments[0]
    tensors = model.trainable_tensors().values()
    return TrainPlan(
        steps=ready.plan.steps,
        train_items=len(ready.batches.items),
        validation_items=min(len(training_items(validation)), config.eval.val_samples),
        missing_samples=missing,
        trainable_parameters=sum(tensor.numel() for tensor in tensors),
        bytes=_bytes(tensors),
        seconds=each * ready.plan.steps,
    )


def train(
    config: Config,
    dataset: Dataset,
    modality: Modality,
    features: FeatureSource,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    run: RunFolder,
    *,
    device: str = "auto",
    missing: int = 0,
) -> TrainSummary:
    """Train on samples whose features are there; `missing` samples were left out before, and are reported.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    started = time.perf_counter()
    ready = _prepare(config, dataset, features, training, device)
    tensors = ready.model.trainable_tensors()
    require_room(run.path, _bytes(tensors.values()))
    run.begin(ready.config, _inputs(dataset, modality, features, ready.lm))

    def save(step: int, _result: Validation | None, best: bool) -> None:
        run.save("last", tensors, step=step)
        if best:
            run.save("best", tensors, step=step)

    fixed = _validation_batches(ready.config, validation, ready.text, features)
    result = train_model(
        ready.model, ready.batches, fixed, ready.plan, device=ready.device, report=run.report, save=save
    )
    run.finish()
    count = sum(tensor.numel() for tensor in tensors.values())
    return TrainSummary(
        run=str(run.path),
        steps=ready.plan.steps,
        train_items=len(ready.batches.items),
        missing_samples=missing,
        trainable_parameters=count,
        all_parameters=sum(tensor.numel() for tensor in ready.model.parameters()),
        seconds=time.perf_counter() - started,
        val_loss=result.loss if result else None,
        val_exact=result.exact if result else None,
    )


def _prepare(
    config: Config, dataset: Dataset, features: FeatureSource, training: Sequence[Sample], device: str
) -> _Prepared:
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
    batches = _batches(config, items, text, features)
    steps = config.optim.epochs * len(batches)
    steps = min(steps, config.optim.max_steps or steps)
    return _Prepared(config, loaded, text, model, batches, _plan(config, steps, len(batches)), where)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of the checkpoints: the best, the last, and the draft that takes the place of one of them."""
    return 3 * sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def load_run(folder: RunFolder, *, device: str = "auto", checkpoint: str = "best") -> LoadedRun:
    """The run's model with its trained tensors.

    Raises:
        UsageError: a part of the run is missing, or the language model is not the one that it was trained with.
    """
    config, inputs = folder.config, folder.inputs
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized)
    if digest_tensors(lm.state_dict()) != inputs["lm"]:
        raise UsageError(
            f"{config.lm.name!r} has other weights than when {folder.name} was trained", hint="train again"
        )
    text = load_text_format(config.lm.name, lm)
    model = build_model(config, lm, int(inputs["width"]))
    tensors, step = folder.load(checkpoint)
    trained = digest_tensors(tensors)
    encoder = {name.removeprefix(_ENCODER): tensors.pop(name) for name in [*tensors] if name.startswith(_ENCODER)}
    try:
        model.load_trainable(tensors)
    except ValueError as error:
        raise UsageError(f"{folder.path}: {error}", hint="train again") from error
    model = model.to(pick_device(device)).eval()
    return LoadedRun(folder, config, model, text, inputs, step, encoder, trained)


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


def _validation_batches(
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


def _inputs(dataset: Dataset, modality: Modality, features: FeatureSource, lm: str) -> dict[str, Any]:
    samples = [{**asdict(sample), "answers": dict(sample.answers)} for sample in dataset.samples]
    return {
        "data": dataset.spec,
        "data_root": str(Path(dataset.root).resolve()),
        "samples": digest_json(samples),
        "modality": modality.value,
        "features": features.describe(),
        "width": features.width,
        "lm": lm,
        "epalm": __version__,
    }
