"""A trained run on a split: decode what is not decoded yet, score, and write both beside the run."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.cache.token_rules import CLS
from epalm.console import say
from epalm.dask_engine import Cluster, chosen_cluster
from epalm.datasets import load_dataset
from epalm.errors import CacheError, UsageError
from epalm.evaluate.decoding.decode import decode_batches, decode_samples
from epalm.evaluate.decoding.options import DecodeOptions, require_questions
from epalm.evaluate.decoding.predictions import Asked, find_reusable, predict_samples, prediction_line, what_decides
from epalm.evaluate.decoding.remote import decode_remotely
from epalm.evaluate.metrics.registry import choose_metrics
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.score_files import FOLDER, LAST, write_scores
from epalm.evaluate.scoring import chance_predictions, score_predictions
from epalm.evaluate.submission import Submission, plan_submission
from epalm.extract.live import LiveFeatures, rebuild_encoder, require_same_encoder
from epalm.fingerprint import digest_json
from epalm.samples import Dataset, Modality, Prediction, Sample, Task, with_links
from epalm.train.data.batches import chosen_samples
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.runs.loading import LoadedRun, load_run
from epalm.train.runs.run_folder import RunFolder

_PROBED = 32  # samples that an estimate decodes
Decode = Callable[..., Generator[list[Prediction]]]  # of a run, features, samples and options


@dataclass(frozen=True)
class ScorePlan:
    """What a request comes to: everything that decides predictions and scores."""

    run: LoadedRun  # where others decode, shapes suffice
    features: FeatureSource
    decode: DecodeOptions
    about: dict[str, Any]  # what the scores say of themselves: data, split, …
    there: Sequence[Sample]  # the split's samples of the recipe's tasks
    expected: Sequence[Sample]  # those of them that are to be scored
    asked: Sequence[Asked]  # those of them that have features, with what decides their predictions
    path: Path  # of the predictions
    chance: Sequence[Prediction] = ()  # guesses to set beside the predictions
    metrics: Sequence[str] | None = None  # None: all
    decoder: Decode = decode_samples  # here, or on other processes
    submission: Submission | None = None


def plan_score(request: ScoreRequest, *, dry: bool = False) -> ScorePlan:
    """Load a run, its data and their features. `dry`: nothing is written, and media may be missing.

    Raises:
        UsageError: options that do not go together, or that the run, its data or its features do not permit.
        EpalmError: one of these cannot be used.
    """
    if request.predictions is not None:
        raise UsageError(
            f"{request.predictions} has predictions of no run", hint="epalm.evaluate.given.score_given scores them"
        )
    metrics, split = choose_metrics(request.metrics), request.split
    cluster = chosen_cluster(request.engine, request.scheduler, request.dask_workers)
    if request.processes > 1 and cluster is not None:
        raise UsageError("--processes is for --engine local", hint="--dask-workers, or the cluster, says how many")
    cluster = Cluster(None, request.processes) if request.processes > 1 else cluster
    decoder: Decode = decode_samples
    if cluster is not None:
        decoder = partial(decode_remotely, cluster, request.checkpoint, request.device)
    folder = RunFolder.find(request.runs, request.run)
    shapes = cluster is not None and not dry  # are enough
    run = load_run(
        folder, device=request.device, checkpoint=request.checkpoint, lm=request.lm, empty=shapes, write=not dry
    )
    config, trained = run.config, run.inputs["features"]
    data = with_links(request.data or str(run.inputs["data"]), follow=request.follow_links)
    if not data:
        raise UsageError(f"{folder.path} names no data", hint="--data takes yours")
    modality = request.modality or Modality(run.inputs["modality"])
    if request.feature_set is None and modality != run.inputs["modality"]:
        fault = f"{folder.path} was trained on {run.inputs['modality']} media"
        raise UsageError(fault, hint=f"--feature-set names features of {modality} media; epalm cache ls shows them")
    cached = request.feature_set is not None or trained["source"] == "cache"
    dataset = load_dataset(data, modality, media_here=not cached, write=not dry)
    say(f"run: {folder.path}, step {run.step}; data: {data}, split {split}")
    decode = request.decode.options(config.decode, request.batch_size)
    there = chosen_samples(dataset, config, split)
    expected = samples = there[: request.limit]
    if not expected:
        splits = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise UsageError(f"data {data!r} has no samples to score in split {split!r}; it has {splits}", hint="--split")
    questions = sum(sample.task is Task.QA for sample in expected)
    require_questions(decode, questions, len(expected) - questions)
    features: FeatureSource
    if cached:
        features = _cached_features(request, run, dataset, expected, dry=dry)
        samples = features.with_rows(expected, allow_missing=None if dry else request.allow_missing)
    else:
        encoder = rebuild_encoder(trained, request.device, run.encoder, weights=request.weights)
        features = LiveFeatures(encoder, tuple(trained["layers"]), dataset)
    submission = request.submission and plan_submission(request.submission, there, {sample.id for sample in samples})
    training = chosen_samples(dataset, config, config.data.train_split)
    chance = chance_predictions(training, expected)
    asked, path = what_decides(run, features, samples, decode, split)
    about = {
        "run": folder.name,
        "data": dataset.spec,
        "modality": modality,
        "split": split,
        "limit": request.limit,
        "checkpoint_step": run.step,
        "blind": config.model.blind,
        "decode": decode.deciding(),
        "samples_without_features": len(expected) - len(samples),
        "predictions": str(path),
    }
    return ScorePlan(
        run, features, decode, about, there, expected, asked, path, chance, metrics, decoder, submission or None
    )


def _cached_features(
    request: ScoreRequest, run: LoadedRun, dataset: Dataset, samples: Sequence[Sample], *, dry: bool
) -> CachedFeatures:
    """Those of training, or another set of the cache."""
    trained = run.inputs["features"]
    if request.weights is not None:
        raise UsageError("--weights names an encoder, and the features come from the cache", hint="leave it out")
    cache = Cache(request.cache, read_only=dry)
    name, rule = request.feature_set or trained["set"], str(trained["encoder"].get("tokens", CLS))
    if request.feature_set is None and name not in cache.set_names():
        serving = cache.serving(FeatureSpec.from_json(trained["spec"])) if "spec" in trained else ()
        name = next((one.name for one in serving), None)
    if name is None:
        raise CacheError(
            f"{run.folder.path} was trained on feature set {trained['set']}, which is not in {cache.where} any more",
            hint="epalm extract, as before, makes it again; --cache names another cache, --feature-set another set",
        )
    features = CachedFeatures(cache, name, dataset, samples, trained["layers"], rule=rule)
    if request.feature_set is not None:
        own = {**trained, "encoder": {}} if run.encoder else trained  # no cache has features of one that was trained
        require_same_encoder(own, features.describe(), run=run.folder.name)
    say(f"features: feature set {name}, layers {list(trained['layers'])}, view 0")
    return features


def execute_score(plan: ScorePlan) -> dict[str, Any]:
    """Decode the samples and score them; what `scores.json` has of it.

    Predictions lie in `predictions/`, each with the key of all that decides it; what is there under the same key is not
    decoded again. Their scores lie in `scores/`, under a name that goes by all that decides them, and `scores.json` has
    those of the last scoring. Raises EpalmError: the run folder cannot be written, or has too little room.
    """
    decode = partial(plan.decoder, plan.run, plan.features, options=plan.decode)
    predictions = predict_samples(plan.asked, plan.path, decode)
    digests = {one.sample.media: one.medium for one in plan.asked if one.medium}
    scores = score_predictions(
        plan.expected, predictions, plan.chance, metrics=plan.metrics, split=plan.there, digests=digests
    )
    folder, about = plan.run.folder.path, plan.about
    keys = [one.key for one in plan.asked]
    decides = digest_json([about["data"], about["limit"], plan.metrics, scores.digest, keys])
    name = f"{plan.path.stem}-{decides[:8]}.json"
    if plan.submission:
        handed_on = folder / "submissions" / f"{plan.submission.name}-{name}"
        about = {**about, "submission": str(handed_on)}
    written = write_scores(folder / FOLDER / name, about, scores, last=folder / LAST)
    if plan.submission:
        plan.submission.write(handed_on, predictions, written)
    return written


def estimate_score(plan: ScorePlan) -> dict[str, Any]:
    """What `execute_score` would do, as `--plan --json` shows it; nothing is written.

    "seconds" come from some samples that are decoded here, and thrown away; samples that are "equal_to_another" are
    decoded with it; "decode" is what decides the predictions.
    """
    reuse = find_reusable(plan.asked, plan.path)
    probed = reuse.to_decode[:: max(1, len(reuse.to_decode) // _PROBED)][:_PROBED]
    by_id = {one.sample.id: one for one in probed}
    started, size = time.perf_counter(), 0
    for batch in decode_batches(plan.run, plan.features.gather, [one.sample for one in probed], plan.decode):
        size += sum(len(prediction_line(prediction.text, by_id[prediction.id])) for prediction in batch)
    share = len(reuse.to_decode) / max(1, len(probed))
    return {
        "samples": len(plan.expected),
        "without_features": len(plan.expected) - len(plan.asked),
        "decoded_already": reuse.reused,
        "equal_to_another": reuse.shared,
        "to_decode": len(reuse.to_decode),
        "bytes": round(size * share),
        "seconds": (time.perf_counter() - started) * share,
        "predictions": str(plan.path),
        "decode": plan.decode.deciding(),
    }
