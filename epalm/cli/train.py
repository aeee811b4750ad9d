"""`epalm train`: stage 2. Reads the options, finds samples and features, says what was chosen."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    CacheOption,
    DeviceOption,
    JsonOption,
    LayersOption,
    OptionalDataOption,
    OptionalModalityOption,
    PlanOption,
    RunsOption,
    SetOption,
)
from epalm.cli.recipe_options import (
    PLAYGROUND,
    BalancedOption,
    BlindOption,
    FewShotOption,
    InjectOption,
    RecipeOption,
    SeedOption,
    UnfreezeOption,
    VariantOption,
    in_full,
)
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.cache.store import Cache
    from epalm.config import Config
    from epalm.samples import Dataset, Sample
    from epalm.train.features import CachedFeatures, FeatureSource
    from epalm.train.run import TrainSummary

_STOPPED = 130


def train(
    *,
    from_cache: Annotated[
        bool, typer.Option("--from-cache", help="Take features from the cache; else the encoder runs in the loop.")
    ] = False,
    modality: OptionalModalityOption = None,
    data: OptionalDataOption = None,
    recipe: RecipeOption = None,
    variant: VariantOption = None,
    inject: InjectOption = None,
    unfreeze: UnfreezeOption = None,
    few_shot: FewShotOption = None,
    balanced: BalancedOption = False,
    settings: SetOption = None,
    blind: BlindOption = False,
    feature_set: Annotated[
        str | None,
        typer.Option(help="Feature set of the cache. [default: of the latest extraction]", show_default=False),
    ] = None,
    layers: LayersOption = None,
    allow_missing: Annotated[int, typer.Option(help="Go on without up to this many media.", min=0)] = 0,
    canary: Annotated[
        bool,
        typer.Option("--canary/--no-canary", help="Encode a few media again first, and compare them with the cache."),
    ] = True,
    seed: SeedOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    run: Annotated[
        str | None, typer.Option(help="Name of the run's folder. [default: time, modality, recipe]", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train connector, soft prompt and adapters against the frozen language model.

    With --from-cache, on the features of the latest extraction: nothing is decoded or encoded. A medium without
    features stops the training before it begins, unless --allow-missing says how many are acceptable.

    Examples:

        epalm train --from-cache

        epalm train --from-cache --modality video --variant epalm-ada --inject 2@0:2

        epalm train --from-cache --data vqa.jsonl --recipe vqa-v2 --set lm.name=facebook/opt-350m

        epalm train --modality image --set optim.max_steps=20
    """
    from epalm.cache.store import Cache
    from epalm.config import load_config
    from epalm.console import say
    from epalm.datasets import load_dataset
    from epalm.errors import UsageError

    store = Cache(cache, read_only=plan)
    if from_cache and (modality is None or data is None):
        latest = store.latest(modality.value if modality else None)
        modality, data = Modality(latest.modality), data or latest.data
    modality, data = modality or Modality.IMAGE, data or PLAYGROUND
    if data == PLAYGROUND:
        say("data: the playground, a small built-in world (--data takes your own)")
    elif recipe is None:
        raise UsageError("your own data needs a --recipe", hint="--recipe vqa-v2, or --recipe playground for a trial")
    overrides = in_full(
        settings,
        variant=variant,
        inject=inject,
        unfreeze=unfreeze,
        few_shot=few_shot,
        balanced=balanced,
        blind=blind,
        seed=seed,
    )
    config = load_config(recipe or PLAYGROUND, overrides)
    say(f"recipe: {recipe or PLAYGROUND}, variant {config.model.variant}{', blind' if blind else ''}, {config.lm.name}")
    if from_cache and config.encoder.train:
        from epalm.train.features import frozen_features

        raise frozen_features()
    dataset = load_dataset(data, modality)
    if from_cache:
        name = feature_set or store.latest(modality.value).set
        features, training, validation, missing = _cached(store, name, dataset, config, allow_missing, layers)
        if canary and not plan:
            _check_canary(store, name, dataset, training, device)
    else:
        features, training, validation = _live(modality, data, dataset, config, device)
        missing = 0
    say(f"features: {_in_words(features)}; {len(training):,} training and {len(validation):,} validation samples")
    if plan:
        _show_plan(config, dataset, features, training, validation, missing, device, as_json)
        return
    summary = _train(config, dataset, modality, features, training, validation, missing, runs, run, recipe, device)
    if from_cache:
        _mark_use(store, name, Path(summary.run))
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    share = summary.trainable_parameters / summary.all_parameters
    exact = (
        ""
        if summary.val_exact is None
        else f", validation loss {summary.val_loss:.3f} nats, exact {summary.val_exact:.3f}"
    )
    say(
        f"{summary.steps} steps in {summary.seconds:.1f} s; {summary.trainable_parameters:,} trained parameters, "
        f"{share:.2%} of all{exact}"
    )
    say(f"run {summary.run}; next: epalm score")


def _cached(
    store: "Cache", name: str, dataset: "Dataset", config: "Config", allow_missing: int, layers: str | None
) -> "tuple[CachedFeatures, tuple[Sample, ...], tuple[Sample, ...], int]":
    from epalm.cli.cached_source import chosen_layers, differences
    from epalm.console import say, warn
    from epalm.train.features import CachedFeatures
    from epalm.train.run import samples_of

    parts = samples_of(dataset, config)
    every = parts[0] + parts[1]
    found = store.find(name)
    features = CachedFeatures(found, store, dataset, every, layers=chosen_layers(store, found, layers))
    for difference in differences(config.encoder, features.describe()):
        warn(difference)
    if features.sourceless:
        say(f"{features.sourceless:,} media are not here: their rows are found by the names of the extraction")
    kept = features.without_holes(every, allow_missing=allow_missing)
    if len(kept) < len(every):
        warn(f"{len(every) - len(kept)} samples are left out: {len(features.holes)} media have no features")
    ids = {sample.id for sample in kept}
    training, validation = (tuple(sample for sample in part if sample.id in ids) for part in parts)
    if config.data.augment and training and features.draw_from(training, seed=config.optim.seed) == (0,):
        warn(
            "the recipe augments its media, and these features have one view: training sees the same pixels each "
            "epoch. epalm extract --views 4 adds views; --set data.augment=false says that one is meant"
        )
    return features, training, validation, len(every) - len(kept)


def _check_canary(store: "Cache", name: str, dataset: "Dataset", samples: "tuple[Sample, ...]", device: str) -> None:
    from epalm.cache.uses import touch
    from epalm.cli.canary import check_canary

    features = store.find(name)
    touch(features.objects)
    check_canary(features, store, dataset, samples, device)


def _live(
    modality: Modality, data: str, dataset: "Dataset", config: "Config", device: str
) -> "tuple[FeatureSource, tuple[Sample, ...], tuple[Sample, ...]]":
    from epalm.cli.live_source import recipe_features
    from epalm.train.run import samples_of

    seed = config.optim.seed if config.data.augment else None
    tokens = config.model.tokens
    features = recipe_features(config.encoder, modality, data, dataset, tokens, device, view_seed=seed)
    return (features, *samples_of(dataset, config))


def _train(
    config: "Config",
    dataset: "Dataset",
    modality: Modality,
    features: "FeatureSource",
    training: "tuple[Sample, ...]",
    validation: "tuple[Sample, ...]",
    missing: int,
    runs: Path,
    name: str | None,
    recipe: str | None,
    device: str,
) -> "TrainSummary":
    from epalm.console import say
    from epalm.train.run import train as train_run
    from epalm.train.run_folder import RunFolder

    label = "-".join((modality, Path(recipe or PLAYGROUND).stem, *(["blind"] if config.model.blind else [])))
    folder = RunFolder.create(runs, label, name=name)
    try:
        return train_run(
            config, dataset, modality, features, training, validation, folder, device=device, missing=missing
        )
    except KeyboardInterrupt:
        say(f"stopped; {folder.path} keeps the checkpoints of the last validation")
        raise typer.Exit(_STOPPED) from None


def _mark_use(store: "Cache", name: str, run: Path) -> None:
    import socket

    from epalm.cache.uses import mark

    mark(store.find(name).objects, str(run.resolve()), socket.gethostname())


def _show_plan(
    config: "Config",
    dataset: "Dataset",
    features: "FeatureSource",
    training: "tuple[Sample, ...]",
    validation: "tuple[Sample, ...]",
    missing: int,
    device: str,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from epalm.console import print_table, size_in_words, time_in_words
    from epalm.train.run import plan_training

    plan = plan_training(config, dataset, features, training, validation, device=device, missing=missing)
    if as_json:
        typer.echo(json.dumps(asdict(plan)))
        return
    rows = [
        ("steps", f"{plan.steps:,}"),
        ("training items", f"{plan.train_items:,}"),
        ("validation items, each time", f"{plan.validation_items:,}"),
        ("samples without features, left out", f"{plan.missing_samples:,}"),
        ("trained parameters", f"{plan.trainable_parameters:,}"),
        ("checkpoint", size_in_words(plan.checkpoint_bytes)),
        ("time, from a few steps on this machine", time_in_words(plan.seconds)),
    ]
    print_table("train would do", ("", ""), rows)


def _in_words(features: "FeatureSource") -> str:
    told = features.describe()
    if told["source"] != "cache":
        return "the encoder, in the loop, " + ("a new view each epoch" if told["view_seed"] is not None else "view 0")
    views = told["views"]
    drawn = f"one of views {views[0]} to {views[-1]} each epoch" if views != [0] else "view 0"
    return f"feature set {told['set']}, layers {told['layers']}, {drawn}"
