"""`epalm score`: stage 3. Decodes a split with a trained run and scores it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epalm.cli.decode_options import (
    AUTO,
    BatchSizeOption,
    DecodeSeedOption,
    MaxLengthOption,
    NumBeamsOption,
    RankAnswersOption,
    SamplingOption,
    TemperatureOption,
    TopPOption,
    chosen_decoding,
    tell_of_captions,
)
from epalm.cli.encoder_match import require_same_weights
from epalm.cli.engines import remote_decoder
from epalm.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    CacheOption,
    CheckpointOption,
    DaskWorkersOption,
    DeviceOption,
    EngineOption,
    FollowLinksOption,
    JsonOption,
    LmOption,
    OptionalDataOption,
    PlanOption,
    RunsOption,
    SchedulerOption,
    WeightsOption,
)
from epalm.cli.outputs import ForceOption, file_for_scores
from epalm.cli.score_report import show_scores
from epalm.errors import UsageError
from epalm.evaluate.metrics.registry import choose_metrics, metric_names
from epalm.samples import Modality, Task, with_links

if TYPE_CHECKING:
    from epalm.samples import Dataset, Sample
    from epalm.train.data.features import HashedSource
    from epalm.train.runs.loading import LoadedRun

_STOPPED = 130


def score(
    *,
    run: Annotated[
        str | None, typer.Option(help="A run's name or folder. [default: the latest]", show_default=False)
    ] = None,
    data: OptionalDataOption = None,
    follow_links: FollowLinksOption = False,
    modality: Annotated[
        Modality | None,
        typer.Option(
            "--modality", "-m", help="Which media to work on. [default: those of training]", show_default=False
        ),
    ] = None,
    feature_set: Annotated[
        str | None,
        typer.Option(
            help="Feature set of the cache, such as of the same encoder on videos, for a run trained on pictures. "
            "[default: that of training]",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to decode and score.")] = "test",
    num_beams: NumBeamsOption = None,
    max_length: MaxLengthOption = None,
    sampling: SamplingOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    seed: DecodeSeedOption = None,
    rank_answers: RankAnswersOption = None,
    batch_size: BatchSizeOption = AUTO,
    limit: Annotated[
        int | None, typer.Option(help="Only the split's first N samples.", min=1, show_default=False)
    ] = None,
    checkpoint: CheckpointOption = "best",
    allow_missing: Annotated[int, typer.Option(help="Go on without up to this many media.", min=0)] = 0,
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"Metrics, separated by commas: {', '.join(metric_names())}, or bleu for all BLEU. "
            "[default: all that can run]",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Score these instead of a run's: ids and texts as JSON lines, JSON or a table, or results in "
            "the form of VQA, GQA, COCO captions or LLaVA. Needs --data, and neither a model nor features.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --predictions: file for the scores. [default: beside them]", writable=True, show_default=False
        ),
    ] = None,
    force: ForceOption = False,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    lm: LmOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    processes: Annotated[
        int,
        typer.Option(help="Decoding processes of this machine, a GPU each.", min=1, max=256, rich_help_panel="Machine"),
    ] = 1,
    engine: EngineOption = "local",
    scheduler: SchedulerOption = None,
    dask_workers: DaskWorkersOption = 2,
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode a split with a trained run and score what it predicts.

    Predictions are saved as they come; the same command goes on where it was stopped, and decodes nothing twice. A
    metric that cannot run here is skipped with the reason; exit code 3 where --metrics asked for it.

    Examples:

        epalm score

        epalm score --run my-run --split val --num-beams 1

        epalm score --sampling --temperature 0.7 --top-p 0.9 --seed 1

        epalm score --rank-answers answers.txt

        epalm score --data vqa.jsonl --limit 1000 --json

        epalm score --data msvd-qa.jsonl --modality video --feature-set NAME

        epalm score --run my-run --processes 4

        epalm score --runs /shared/runs --engine dask --scheduler tcp://HOST:8786

        epalm score --predictions results.json --data vqa.jsonl --split val
    """
    from epalm.evaluate.score_given import score_given

    wanted = choose_metrics(metrics)
    said: dict[str, Any] = {
        "num_beams": num_beams,
        "max_length": max_length,
        "sampling": sampling,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "rank_answers": rank_answers,
    }
    if predictions is not None:
        _require_no_run(
            run=run,
            feature_set=feature_set,
            plan=plan or None,
            processes=processes if processes > 1 else None,
            engine=None if engine == "local" else engine,
            scheduler=scheduler,
            lm=lm,
            weights=weights,
            **said,
        )
        data = data and with_links(data, follow=follow_links)
        path = file_for_scores(predictions, data, out, force)
        show_scores(
            score_given(predictions, path, data=data, modality=modality, split=split, limit=limit, metrics=wanted),
            path,
            as_json,
            asked_for=metrics is not None,
        )
        return
    if out is not None or force:
        raise UsageError("--out and --force go with --predictions", hint="a run's scores lie in its folder")

    from epalm.cli.work_plan import show_score_plan
    from epalm.console import say
    from epalm.datasets import load_dataset
    from epalm.evaluate.run import plan_score, score_run, scores_path
    from epalm.train.data.features import CachedFeatures
    from epalm.train.prepare import chosen_samples
    from epalm.train.runs.loading import load_run
    from epalm.train.runs.run_folder import RunFolder

    remote = remote_decoder(processes, engine, scheduler, dask_workers, checkpoint, device)
    shapes = remote is not None and not plan  # are enough
    loaded = load_run(RunFolder.find(runs, run), device=device, checkpoint=checkpoint, lm=lm, empty=shapes)
    data = with_links(data or str(loaded.inputs["data"]), follow=follow_links)
    if not data:
        raise UsageError(f"{loaded.folder.path} names no data", hint="--data takes yours")
    modality = modality or Modality(loaded.inputs["modality"])
    if feature_set is None and modality != loaded.inputs["modality"]:
        raise UsageError(
            f"{loaded.folder.path} was trained on {loaded.inputs['modality']} media",
            hint=f"for {modality} media name the features: --feature-set NAME; epalm cache ls shows them",
        )
    cached = feature_set is not None or loaded.inputs["features"]["source"] == "cache"
    dataset = load_dataset(data, modality, media_here=not cached, write=not plan)
    say(f"run: {loaded.folder.path}, step {loaded.step}; data: {data}, split {split}")
    decode = chosen_decoding(loaded.config.decode, batch_size=batch_size, **said)
    samples = chosen_samples(dataset, loaded.config, split)[:limit]
    if not samples:
        splits = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise UsageError(f"data {data!r} has no samples to score in split {split!r}; it has {splits}", hint="--split")
    questions = sum(sample.task is Task.QA for sample in samples)
    tell_of_captions(decode, questions, len(samples) - questions)
    features, present = _features(
        loaded, cache, dataset, samples, feature_set, None if plan else allow_missing, device, weights
    )
    if plan:
        planned = plan_score(loaded, features, present, split=split, expected=len(samples), decode=decode)
        show_score_plan(planned, features, loaded.folder.path, as_json)
        if isinstance(features, CachedFeatures):
            features.require_rows(allow_missing)
        return
    try:
        scores = score_run(
            loaded,
            dataset,
            features,
            present,
            split=split,
            expected=samples,
            modality=modality,
            metrics=wanted,
            decode=decode,
            limit=limit,
            remote=remote,
        )
    except KeyboardInterrupt:
        say("stopped; the predictions so far are saved, the same command goes on")
        raise typer.Exit(_STOPPED) from None
    show_scores(scores, scores_path(loaded), as_json, asked_for=metrics is not None)


def _require_no_run(**options: object) -> None:
    """Raises UsageError when an option was given that says how to decode."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} does not go with --predictions, which decodes nothing", hint=f"leave {option}")


def _features(
    run: "LoadedRun",
    cache: str,
    dataset: "Dataset",
    samples: "tuple[Sample, ...]",
    feature_set: str | None,
    allow_missing: int | None,
    device: str,
    weights: str | None,
) -> "tuple[HashedSource, tuple[Sample, ...]]":
    """As in training, from the cache or from the same encoder; or another set of the cache.

    `allow_missing` None: any number, for a plan.
    """
    from epalm.cache.store import Cache
    from epalm.console import say
    from epalm.errors import CacheError
    from epalm.extract.run_encoder import live_features
    from epalm.train.data.features import CachedFeatures

    told = run.inputs["features"]
    if told["source"] != "cache" and feature_set is None:
        return live_features(told, dataset, device, run.encoder, weights), samples
    if weights is not None:
        raise UsageError("--weights names an encoder, and the features come from the cache", hint="leave it out")
    store = Cache(cache, read_only=allow_missing is None)
    try:
        features = CachedFeatures.open(store, feature_set or told["set"], dataset, samples, told["layers"])
    except CacheError as error:
        if feature_set is not None or told["set"] in store.set_names():
            raise
        raise CacheError(
            f"{run.folder.path} was trained on feature set {told['set']}, which is not in {store.where} any more",
            hint="epalm extract, as before, makes it again; --cache names another cache, --feature-set another set",
        ) from error
    if feature_set is not None:
        require_same_weights(run, features)
    allowed = len(features.holes) if allow_missing is None else allow_missing
    say(f"features: feature set {features.describe()['set']}, layers {list(told['layers'])}, view 0")
    return features, features.without_holes(samples, allow_missing=allowed)
