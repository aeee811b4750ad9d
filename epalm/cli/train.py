"""`epalm train`: stage 2. Reads the options, finds samples and features, says what was chosen."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.launched import in_processes, these_processes
from epalm.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    CacheOption,
    DeviceOption,
    FollowLinksOption,
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
    recipe_for,
)
from epalm.samples import Modality, with_links
from epalm.train.runs.tracking import TrackerName, require_trackers

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.cli.train_features import Material
    from epalm.config import Config
    from epalm.samples import Dataset
    from epalm.train.processes import Processes


@in_processes
def train(
    *,
    from_cache: Annotated[
        bool, typer.Option("--from-cache", help="Take features from the cache; else the encoder runs in the loop.")
    ] = False,
    modality: OptionalModalityOption = None,
    data: OptionalDataOption = None,
    follow_links: FollowLinksOption = False,
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
    again: Annotated[
        bool, typer.Option("--again", help="Train what is done already once more, into another run folder.")
    ] = False,
    track: Annotated[
        list[TrackerName] | None,
        typer.Option(
            callback=lambda names: require_trackers(names or ()) and names,
            help="Send the metrics to a tracker too; may be given several times.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Threads that put batches together ahead of the step.", min=0)] = 2,
    shard_lm: Annotated[
        bool, typer.Option("--shard-lm", help="Divide the frozen language model among the processes of a launcher.")
    ] = False,
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train connector, soft prompt and adapters against the frozen language model.

    With --from-cache, on the features of the latest extraction: nothing is decoded or encoded. A medium without
    features stops the training before it begins, unless --allow-missing says how many are acceptable.

    A run is named by everything that decides it. The same command again goes on where it was stopped or killed, and
    says so where it is done already; when something has changed, it says what, and begins another run.

    Examples:

        epalm train --from-cache

        epalm train --from-cache --modality video --variant epalm-ada --inject 2@0:2

        epalm train --from-cache --data vqa.jsonl --recipe vqa-v2 --set lm.name=facebook/opt-350m

        epalm train --modality image --set optim.max_steps=20
    """
    from epalm.cache.store import Cache
    from epalm.cli.train_features import cached_material, live_material
    from epalm.cli.training import (
        agree_on_run,
        emptied_on_fault,
        mark_use,
        show_done,
        show_start,
        show_summary,
        train_until_stopped,
    )
    from epalm.config import load_config
    from epalm.console import say
    from epalm.datasets import load_dataset
    from epalm.extract.canary import check_canary
    from epalm.train.build import require_language_model
    from epalm.train.run import load_training
    from epalm.train.runs.run_choice import choose_run

    processes = these_processes()
    store = Cache(cache, read_only=plan)
    if from_cache and (modality is None or data is None):
        latest = store.latest(modality.value if modality else None)
        modality, data = Modality(latest.modality), data or latest.data
    modality, data = modality or Modality.IMAGE, with_links(data or PLAYGROUND, follow=follow_links)
    if data == PLAYGROUND:
        say("data: the playground, a small built-in world (--data takes your own)")
    recipe = recipe or recipe_for(data)
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
    config = load_config(recipe, overrides)
    require_language_model(config.lm.name)
    say(f"recipe: {recipe}, variant {config.model.variant}{', blind' if blind else ''}, {config.lm.name}")
    used: FeatureSet | None = None
    with processes.first_goes_ahead():
        dataset = load_dataset(data, modality, media_here=not from_cache, write=not plan)
        if from_cache:
            name = feature_set or store.latest(modality.value).set
            used = store.find(name)
            allowed = None if plan else allow_missing
            material = cached_material(
                store, name, dataset, config, layers=layers, allow_missing=allowed, mapped=processes.count > 1
            )
        else:
            material = live_material(store, modality, dataset, config, device)
    say(material.in_words())
    if plan:
        _show_plan(config, dataset, material, runs, allow_missing, device, processes, shard_lm, as_json)
        return
    label = "-".join((modality, Path(recipe).stem, *(["blind"] if config.model.blind else [])))
    loaded = load_training(
        config,
        dataset,
        modality,
        material.features,
        material.training,
        material.validation,
        recipe=recipe,
        device=device,
        processes=processes,
        workers=workers,
        sharded=shard_lm,
        missing=material.missing,
    )
    chosen = agree_on_run(processes, lambda: choose_run(runs, label, loaded.inputs, name=run, again=again))
    if chosen.summary is not None:
        show_done(chosen, as_json)
        return
    show_start(chosen, loaded)
    with emptied_on_fault(chosen.folder) if processes.first else nullcontext():
        if used and processes.first:
            if canary:
                check_canary(used, store, dataset, material.training, device)
            mark_use(used, chosen.folder)
        summary = train_until_stopped(loaded, chosen.folder, track or ())
    show_summary(summary.to_json(), as_json)


def _show_plan(
    config: "Config",
    dataset: "Dataset",
    material: "Material",
    runs: Path,
    allow_missing: int,
    device: str,
    processes: "Processes",
    sharded: bool,
    as_json: bool,
) -> None:
    from epalm.cli.work_plan import show_train_plan
    from epalm.train.data.features import CachedFeatures
    from epalm.train.planning import plan_training

    features = material.features
    if not material.training and isinstance(features, CachedFeatures):
        features.require_rows(allow_missing)
    plan = plan_training(
        config,
        dataset,
        features,
        material.training,
        material.validation,
        device=device,
        processes=processes,
        sharded=sharded,
        missing=material.missing,
    )
    show_train_plan(plan, features, runs, as_json)
    if isinstance(features, CachedFeatures):
        features.require_rows(allow_missing)
