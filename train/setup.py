"""From a request to a training with everything loaded: samples, features, model, batches, and what names the run.

Whatever decides something about a training is decided here, for its plan and for the training itself. Writes nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm import __version__
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.config import Config, load_config
from epalm.console import say
from epalm.datasets import load_dataset
from epalm.devices import pick_device
from epalm.errors import UsageError
from epalm.fingerprint import digest_json, digest_tensors
from epalm.samples import Dataset, Modality, with_links
from epalm.train.bridge.build import build_model, require_bridge
from epalm.train.bridge.model import EpalmModel
from epalm.train.checks import length_warnings, require_short, schedule_warnings, text_warnings
from epalm.train.data.batches import Batch, Batches, training_items
from epalm.train.data.features import FeatureSource, TrainableSource
from epalm.train.data.text import TextFormat, load_text_format
from epalm.train.lm.load import load_lm, require_shardable, shard_lm
from epalm.train.lm.processes import ALONE, Processes
from epalm.train.material import Material, cached_material, samples_of
from epalm.train.request import PLAYGROUND, TrainRequest, recipe_for
from epalm.train.runs.run_key import library_versions, run_key, run_parts
from epalm.train.runs.tracking import require_trackers
from epalm.train.step import Hyperparameters, Schedule

LiveSource = Callable[..., FeatureSource]  # the encoder in the loop: see `recipe_features`, in extraction


@dataclass(frozen=True)
class Resolved:
    """What a request comes to before a language model is loaded: settings, data and features."""

    config: Config
    dataset: Dataset
    modality: Modality
    material: Material
    request: TrainRequest
    recipe: str = ""
    cache: Cache | None = None
    feature_set: FeatureSet | None = None  # None: the encoder is in the loop


@dataclass(frozen=True)
class Setup:
    """A training with everything loaded and nothing written; `inputs` are what a run folder notes of it."""

    resolved: Resolved
    config: Config  # with everything filled in
    text: TextFormat
    model: EpalmModel
    batches: Batches
    hyper: Hyperparameters
    device: torch.device
    warnings: tuple[str, ...]  # what the user should know before the first step
    inputs: dict[str, Any]
    processes: Processes


def resolve(
    request: TrainRequest,
    live: LiveSource,
    *,
    processes: Processes = ALONE,
    device: str = "auto",
    planning: bool = False,
) -> Resolved:
    """Settings, samples and features of a request; a plan writes nothing and takes any number of missing media.

    Raises:
        UsageError: options that make no sense, media without features, a language model that cannot be used.
        CacheError: there are no features, or they are damaged.
    """
    require_trackers(request.track or ())
    cache, modality, data = Cache(request.cache, read_only=planning), request.modality, request.data
    if request.from_cache and (modality is None or data is None):
        latest = cache.latest(modality.value if modality else None)
        modality, data = Modality(latest.modality), data or latest.data
    modality, data = modality or Modality.IMAGE, with_links(data or PLAYGROUND, follow=request.follow_links)
    if data == PLAYGROUND:
        say("data: the playground, a small built-in world (--data takes your own)")
    recipe = request.recipe or recipe_for(data)
    config = load_config(recipe, request.changes.overrides())
    load_text_format(config.lm.name)  # its faults are known before its weights are loaded, or media read
    blind = config.model.blind
    say(f"recipe: {recipe}, variant {config.model.variant}{', blind' if blind else ''}, {config.lm.name}")
    used: FeatureSet | None = None
    with processes.first_goes_ahead():
        dataset = load_dataset(data, modality, media_here=not request.from_cache, write=not planning)
        if request.from_cache:
            used = cache.find(request.feature_set or cache.latest(modality.value).set)
            material = cached_material(
                cache,
                used.name,
                dataset,
                config,
                layers=request.layers,
                allow_missing=None if planning else request.allow_missing,
                mapped=processes.count > 1,
            )
        else:
            seed = config.optim.seed if config.data.augment else None
            places = (modality, dataset, config.model.tokens, device)
            features = live(config.encoder, *places, view_seed=seed, index=cache.media)
            material = Material(features, *samples_of(dataset, config))
    say(material.in_words())
    return Resolved(config, dataset, modality, material, request, recipe, cache, used)


def set_up(resolved: Resolved, *, processes: Processes = ALONE, device: str | None = None) -> Setup:
    """Load the language model and build everything around it; `device` [the request's] is this process's own.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    config, dataset, material, request = resolved.config, resolved.dataset, resolved.material, resolved.request
    features, training = material.features, material.training
    items = training_items(training)
    _require_fit(config, dataset, features, len(items))
    where = pick_device(device or request.device)
    if request.shard_lm:
        require_shardable(config, processes)
    empty = request.shard_lm and not processes.first
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized, empty=empty)
    text, positions = load_text_format(config.lm.name, lm), lm.config.max_position_embeddings
    require_short([*training, *material.validation], text, positions)
    config = config.resolved(lm.config.num_hidden_layers)
    config = config.model_copy(update={"optim": config.optim.fitted(len(items))})
    weights = processes.from_first("" if empty else digest_tensors(lm.state_dict()))  # before anything is put into it
    encoder = features.encoder if config.encoder.train and isinstance(features, TrainableSource) else None
    model = build_model(config, lm, features.width, encoder)
    model.lm.gradient_checkpointing = config.optim.gradient_checkpointing
    if config.optim.compiled:
        model.lm.compile_blocks()
    if request.shard_lm:
        shard_lm(lm, where, processes)
    layers = config.model.tokens
    batches = Batches(
        items,
        text,
        features,
        layers=layers,
        batch_size=config.optim.batch_size,
        seed=config.optim.seed,
        loss_on=config.optim.loss_on,
        processes=processes,
        workers=request.workers,
        pinned_for=where if where.type == "cuda" else None,
    )
    hyper = _hyperparameters(config, len(batches))
    parts = run_parts(
        config, features, training, material.validation, lm=weights, tokenizer=text.digest, device=where.type
    )
    inputs = {
        "data": dataset.spec,
        "data_root": str(Path(dataset.root).resolve()),
        "recipe": resolved.recipe,
        "modality": resolved.modality.value,
        "features": features.describe(),
        "width": features.width,
        "lm": weights,
        "epalm": __version__,
        "key": run_key(parts),
        "parts": parts,
        "versions": library_versions(),
    }
    processes.require_same(digest_json([inputs["key"], inputs["versions"]]), "what is trained on")
    warnings = (
        *schedule_warnings(hyper.schedule, hyper.steps, len(batches), config.optim.max_steps),
        *length_warnings(*batches.texts.decoded_lengths(), config.decode.max_length, positions),
        *text_warnings(training, text),
    )
    return Setup(resolved, config, text, model, batches, hyper, where, warnings, inputs, processes)


def validation_batches(setup: Setup) -> Sequence[Batch]:
    """The batches of every validation: a random part of the samples, in view 0."""
    config, items = setup.config, training_items(setup.resolved.material.validation)
    chosen = np.random.default_rng(config.optim.seed).permutation(len(items))[: config.eval.val_samples]
    batches = Batches(
        [items[place] for place in chosen],
        setup.text,
        setup.resolved.material.features,
        layers=config.model.tokens,
        batch_size=config.optim.batch_size,
        seed=config.optim.seed,
        loss_on=config.optim.loss_on,
        processes=setup.processes,
    )
    return list(batches.epoch(0, augmented=False)) if items else []


def _require_fit(config: Config, dataset: Dataset, features: FeatureSource, items: int) -> None:
    """What can be known before the language model is loaded. Raises UsageError."""
    config.at_known_depth()
    require_bridge(config.model.forms[0])
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


def _hyperparameters(config: Config, steps_per_epoch: int) -> Hyperparameters:
    optim = config.optim
    steps = optim.epochs * steps_per_epoch
    steps = min(steps, optim.max_steps or steps)
    epochs = math.ceil(steps / steps_per_epoch)
    return Hyperparameters(
        steps,
        Schedule(optim.warmup_steps, optim.warmup_lr, optim.peak_lr, optim.min_lr, epochs),
        optim.fixed_lr,
        optim.lm_lr,
        optim.encoder_lr,
        optim.weight_decay,
        optim.loss_weight,
        validate_every=config.eval.every_steps,
        micro_batches=optim.micro_batches,
    )
