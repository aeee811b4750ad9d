"""A trained run on a split: decode what is not decoded yet, score, and write both beside the run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cache.objects.durable import write_atomically
from epalm.cache.store import Cache
from epalm.console import say
from epalm.dask_cluster import Cluster, chosen_cluster
from epalm.datasets import load_dataset
from epalm.errors import CacheError, UsageError
from epalm.evaluate.decoding.decode import decode_batches
from epalm.evaluate.decoding.options import DecodeOptions, require_questions
from epalm.evaluate.decoding.predictions import (
    find_reusable,
    predict_samples,
    prediction_line,
    run_inputs,
    what_decides,
)
from epalm.evaluate.decoding.remote import RemoteDecoder
from epalm.evaluate.metrics.chance import chance_predictions
from epalm.evaluate.metrics.registry import choose_metrics
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.score_files import FOLDER, LAST, as_json, write_scores
from epalm.evaluate.scoring import digest_samples, score_predictions
from epalm.extract.run_encoder import live_features, require_same_encoder
from epalm.fingerprint import digest_json
from epalm.samples import Dataset, Modality, Prediction, Sample, Task, with_links
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.data.few_shot import chosen_samples
from epalm.train.runs.loading import LoadedRun, load_run
from epalm.train.runs.run_folder import RunFolder, writing

_PROBED = 32  # samples that an estimate decodes


@dataclass(frozen=True)
class ScorePlan:
    """What a request comes to: everything that decides predictions and scores."""

    run: LoadedRun  # where others decode, shapes suffice
    dataset: Dataset
    modality: str
    split: str
    expected: Sequence[Sample]  # the split's first `limit` samples of the recipe's tasks
    samples: Sequence[Sample]  # those of them that have features
    features: FeatureSource
    decode: DecodeOptions
    metrics: Sequence[str] | None = None  # None: all
    limit: int | None = None  # None: all samples
    remote: RemoteDecoder | None = None  # who decodes; None: this process

    def __post_init__(self) -> None:
        """Raises UsageError: features of another shape than the run was trained on."""
        run, features = self.run, self.features
        if features.width != run.inputs["width"] or features.layers < run.config.model.tokens:
            raise UsageError(
                f"the run takes {run.config.model.tokens} tokens of width {run.inputs['width']}, the features have "
                f"{features.layers} of width {features.width}",
                hint="score with features of the encoder that it was trained on",
            )

    @property
    def path(self) -> Path:
        """Of the predictions."""
        digest = digest_json(run_inputs(self.run, self.features, self.decode))[:16]
        return self.run.folder.path / "predictions" / f"{self.split}-{digest}.jsonl"

    def decoded(self, samples: Sequence[Sample]) -> Iterator[list[Prediction]]:
        """Predictions batch by batch, by this process."""
        return decode_batches(self.run, self.features.gather, samples, self.decode)


def plan_score(request: ScoreRequest, *, dry: bool = False) -> ScorePlan:
    """Load a run, its data and their features. `dry`: nothing is written, and media may be missing.

    Raises:
        UsageError: options that do not go together, or that the run, its data or its features do not permit.
        EpalmError: one of these cannot be used.
    """
    if request.predictions is not None:
        raise UsageError(f"{request.predictions} has predictions of no run", hint="evaluate.score_given scores them")
    metrics = choose_metrics(request.metrics)
    remote = _remote(request)
    folder = RunFolder.find(request.runs, request.run)
    shapes = remote is not None and not dry  # are enough
    run = load_run(
        folder, device=request.device, checkpoint=request.checkpoint, lm=request.lm, empty=shapes, write=not dry
    )
    data = with_links(request.data or str(run.inputs["data"]), follow=request.follow_links)
    if not data:
        raise UsageError(f"{folder.path} names no data", hint="--data takes yours")
    modality = request.modality or Modality(run.inputs["modality"])
    if request.feature_set is None and modality != run.inputs["modality"]:
        raise UsageError(
            f"{folder.path} was trained on {run.inputs['modality']} media",
            hint=f"for {modality} media name the features: --feature-set NAME; epalm cache ls shows them",
        )
    cached = request.feature_set is not None or run.inputs["features"]["source"] == "cache"
    dataset = load_dataset(data, modality, media_here=not cached, write=not dry)
    say(f"run: {folder.path}, step {run.step}; data: {data}, split {request.split}")
    decode = request.decode.options(run.config.decode, request.batch_size)
    expected = chosen_samples(dataset, run.config, request.split)[: request.limit]
    if not expected:
        splits = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise UsageError(
            f"data {data!r} has no samples to score in split {request.split!r}; it has {splits}", hint="--split"
        )
    questions = sum(sample.task is Task.QA for sample in expected)
    require_questions(decode, questions, len(expected) - questions)
    features: FeatureSource
    if cached:
        features, samples = _cached_features(request, run, dataset, expected, dry=dry)
    else:
        features = live_features(run.inputs["features"], dataset, request.device, run.encoder, request.weights)
        samples = expected
    return ScorePlan(
        run, dataset, modality, request.split, expected, samples, features, decode, metrics, request.limit, remote
    )


def _remote(request: ScoreRequest) -> RemoteDecoder | None:
    cluster = chosen_cluster(request.engine, request.scheduler, request.dask_workers)
    if request.processes > 1:
        if cluster is not None:
            raise UsageError("--processes is for --engine local", hint="--dask-workers, or the cluster, says how many")
        cluster = Cluster(None, request.processes)
    return None if cluster is None else RemoteDecoder(request.checkpoint, request.device, cluster)


def _cached_features(
    request: ScoreRequest, run: LoadedRun, dataset: Dataset, samples: Sequence[Sample], *, dry: bool
) -> tuple[FeatureSource, Sequence[Sample]]:
    """Those of training, or another set of the cache; and the samples that have some."""
    trained = run.inputs["features"]
    if request.weights is not None:
        raise UsageError("--weights names an encoder, and the features come from the cache", hint="leave it out")
    cache = Cache(request.cache, read_only=dry)
    name = request.feature_set or trained["set"]
    try:
        features = CachedFeatures.open(cache, name, dataset, samples, trained["layers"])
    except CacheError as error:
        if request.feature_set is not None or name in cache.set_names():
            raise
        raise CacheError(
            f"{run.folder.path} was trained on feature set {name}, which is not in {cache.where} any more",
            hint="epalm extract, as before, makes it again; --cache names another cache, --feature-set another set",
        ) from error
    if request.feature_set is not None:
        own = {**trained, "encoder": {}} if run.encoder else trained  # no cache has features of one that was trained
        require_same_encoder(own, features.describe(), run=run.folder.name)
    say(f"features: feature set {features.describe()['set']}, layers {list(trained['layers'])}, view 0")
    return features, features.with_rows(samples, allow_missing=None if dry else request.allow_missing)


def execute_score(plan: ScorePlan) -> dict[str, Any]:
    """Decode the samples and score them; what `scores.json` has of it.

    Predictions lie in `predictions/`, each with the key of all that decides it; what is there under the same key is not
    decoded again. Their scores lie in `scores/`, and `scores.json` has those of the last scoring.

    Raises:
        EpalmError: the run folder cannot be written, or has too little room.
    """
    run, features, path = plan.run, plan.features, plan.path

    with ExitStack() as ending:

        def decode(missing: Sequence[Sample]) -> Iterator[list[Prediction]]:
            if plan.remote is None:
                return plan.decoded(missing)
            return ending.enter_context(closing(plan.remote.decode(run, features, missing, plan.decode)))

        predictions = predict_samples(what_decides(run, features, plan.samples, plan.decode), path, decode)
    about = {
        "run": run.folder.name,
        "data": plan.dataset.spec,
        "modality": plan.modality,
        "split": plan.split,
        "limit": plan.limit,
        "samples": digest_samples(plan.expected),
        "checkpoint_step": run.step,
        "blind": run.config.model.blind,
        "decode": plan.decode.deciding(),
        "samples_without_features": len(plan.expected) - len(plan.samples),
        "predictions": str(path),
    }
    training = chosen_samples(plan.dataset, run.config, run.config.data.train_split)
    hashed = zip((sample.media for sample in plan.samples), features.digests(plan.samples), strict=True)
    found = score_predictions(
        plan.expected,
        predictions,
        chance_predictions(training, plan.expected) if training else (),
        metrics=plan.metrics,
        split=chosen_samples(plan.dataset, run.config, plan.split),
        digests={name: digest for name, digest in hashed if digest},
    )
    scores = write_scores(run.folder.path / FOLDER / f"{path.stem}.json", about, found)
    scores["per_sample"] = f"{FOLDER}/{scores['per_sample']}"
    with writing(run.folder.path):
        write_atomically(run.folder.path / LAST, as_json(scores))
    return scores


def estimate_score(plan: ScorePlan) -> dict[str, Any]:
    """What `execute_score` would do, as `--plan --json` shows it; nothing is written.

    "seconds" come from some samples that are decoded here, and thrown away; "reasons" say why samples are to be
    decoded; samples that are "equal_to_another" are decoded with it; "decode" is what decides the predictions.
    """
    found = find_reusable(what_decides(plan.run, plan.features, plan.samples, plan.decode), plan.path)
    some = found.to_decode[:: max(1, len(found.to_decode) // _PROBED)][:_PROBED]
    started = time.perf_counter()
    by_id, size = {one.sample.id: one for one in some}, 0
    for batch in plan.decoded([one.sample for one in some]):
        size += sum(len(prediction_line(prediction.text, by_id[prediction.id])) for prediction in batch)
    share = len(found.to_decode) / max(1, len(some))
    return {
        "samples": len(plan.expected),
        "without_features": len(plan.expected) - len(plan.samples),
        "decoded_already": found.reused,
        "equal_to_another": found.shared,
        "to_decode": len(found.to_decode),
        "reasons": dict(found.reasons),
        "bytes": round(size * share),
        "seconds": (time.perf_counter() - started) * share,
        "predictions": str(plan.path),
        "decode": plan.decode.deciding(),
    }
