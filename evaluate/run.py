"""A trained run on a split: decode what is not decoded yet, score, and write both beside the run."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cache.objects.durable import write_atomically
from epalm.errors import UsageError
from epalm.evaluate.decoding.decode import decode_batches
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.evaluate.decoding.predictions import (
    find_reusable,
    predict_samples,
    prediction_line,
    run_inputs,
    what_decides,
)
from epalm.evaluate.decoding.remote import RemoteDecoder
from epalm.evaluate.metrics.chance import chance_predictions
from epalm.evaluate.score_files import FOLDER, LAST, as_json, write_scores
from epalm.evaluate.scoring import digest_samples, score_predictions
from epalm.fingerprint import digest_json
from epalm.samples import Dataset, Sample
from epalm.train.data.features import HashedSource
from epalm.train.prepare import chosen_samples
from epalm.train.runs.loading import LoadedRun
from epalm.train.runs.run_folder import writing

_PROBED = 32  # samples that a plan decodes


def score_run(
    run: LoadedRun,
    dataset: Dataset,
    features: HashedSource,
    samples: Sequence[Sample],
    *,
    split: str,
    expected: Sequence[Sample],
    modality: str,
    decode: DecodeOptions,
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    remote: RemoteDecoder | None = None,
) -> dict[str, Any]:
    """Decode `samples`, those of the split's `expected` that have features, and score them; writes `scores.json`.

    `expected` are the split's first `limit` samples of the recipe's tasks; None: all of them.
    `modality` is that of the samples. With a `remote` decoder the run's shapes suffice here.

    Predictions lie in `predictions/`, each with the key of all that decides it; what is there under the same key is not
    decoded again. Their scores lie in `scores/`, and `scores.json` has those of the last scoring.

    Raises:
        UsageError: features of another shape than the run was trained on.
        EpalmError: the run folder cannot be written, or has too little room.
    """
    _require_fit(run, features)
    path = _predictions_path(run, features, split, decode)
    with ExitStack() as ending:
        predictions = predict_samples(
            what_decides(run, features, samples, decode),
            path,
            lambda missing: (
                ending.enter_context(closing(remote.decode(run, features, missing, decode)))
                if remote
                else decode_batches(run.model, run.text, features, missing, decode)
            ),
        )
    training = chosen_samples(dataset, run.config, run.config.data.train_split)
    told = {
        "run": run.folder.name,
        "data": dataset.spec,
        "modality": modality,
        "split": split,
        "limit": limit,
        "samples": digest_samples(expected),
        "checkpoint_step": run.step,
        "blind": run.config.model.blind,
        "decode": decode.deciding(),
        "samples_without_features": len(expected) - len(samples),
        "predictions": str(path),
    }
    chance = chance_predictions(training, expected) if training else ()
    there = chosen_samples(dataset, run.config, split)
    hashed = zip((sample.media for sample in samples), features.digests(samples), strict=True)
    digests = {name: digest for name, digest in hashed if digest}
    found = score_predictions(expected, predictions, chance, metrics=metrics, split=there, digests=digests)
    scores = write_scores(run.folder.path / FOLDER / f"{path.stem}.json", told, found)
    scores["per_sample"] = f"{FOLDER}/{scores['per_sample']}"
    with writing(run.folder.path):
        write_atomically(scores_path(run), as_json(scores))
    return scores


@dataclass(frozen=True)
class ScorePlan:
    """What a scoring would do. `seconds` are told from some samples decoded here, and thrown away."""

    samples: int
    without_features: int
    decoded_already: int
    equal_to_another: int  # and decoded with it
    to_decode: int
    reasons: dict[str, int]  # of these, why
    bytes: int  # to write
    seconds: float
    predictions: str
    decode: dict[str, Any]  # what decides them


def plan_score(
    run: LoadedRun,
    features: HashedSource,
    samples: Sequence[Sample],
    *,
    split: str,
    expected: int,
    decode: DecodeOptions,
) -> ScorePlan:
    """Count what `score_run` would do, and time some of it; nothing is written. Raises UsageError as `score_run`."""
    _require_fit(run, features)
    path = _predictions_path(run, features, split, decode)
    found = find_reusable(what_decides(run, features, samples, decode), path)
    some = found.to_decode[:: max(1, len(found.to_decode) // _PROBED)][:_PROBED]
    started = time.perf_counter()
    by_id, size = {one.sample.id: one for one in some}, 0
    for batch in decode_batches(run.model, run.text, features, [one.sample for one in some], decode):
        size += sum(len(prediction_line(prediction.text, by_id[prediction.id])) for prediction in batch)
    share = len(found.to_decode) / max(1, len(some))
    seconds = (time.perf_counter() - started) * share
    return ScorePlan(
        samples=expected,
        without_features=expected - len(samples),
        decoded_already=found.reused,
        equal_to_another=found.shared,
        to_decode=len(found.to_decode),
        reasons=dict(found.reasons),
        bytes=round(size * share),
        seconds=seconds,
        predictions=str(path),
        decode=decode.deciding(),
    )


def scores_path(run: LoadedRun) -> Path:
    """Where `score_run` writes."""
    return run.folder.path / LAST


def _require_fit(run: LoadedRun, features: HashedSource) -> None:
    if features.width != run.inputs["width"] or features.layers < run.config.model.tokens:
        raise UsageError(
            f"the run takes {run.config.model.tokens} tokens of width {run.inputs['width']}, the features have "
            f"{features.layers} of width {features.width}",
            hint="score with features of the encoder that it was trained on",
        )


def _predictions_path(run: LoadedRun, features: HashedSource, split: str, decode: DecodeOptions) -> Path:
    digest = digest_json(run_inputs(run, features, decode))[:16]
    return run.folder.path / "predictions" / f"{split}-{digest}.jsonl"
