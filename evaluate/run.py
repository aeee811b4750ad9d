"""A trained run on a split: decode what is not decoded yet, score, and write both beside the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epalm.cache.durable import write_atomically
from epalm.errors import UsageError
from epalm.evaluate.chance import chance_predictions
from epalm.evaluate.decoding import decode_batches, predict_samples
from epalm.evaluate.scoring import backends, score_predictions
from epalm.fingerprint import digest_json, digest_tensors
from epalm.samples import Dataset, Sample
from epalm.train.features import FeatureSource
from epalm.train.run import LoadedRun, chosen_samples


def score_run(
    run: LoadedRun,
    dataset: Dataset,
    features: FeatureSource,
    samples: Sequence[Sample],
    *,
    split: str,
    expected: int,
    num_beams: int,
    max_length: int,
    batch_size: int,
) -> dict[str, Any]:
    """Decode and score `samples`, those of the split's `expected` that have features; also writes `scores.json`.

    Predictions lie in `predictions/`, in a file named by everything that decides them; what it holds is not decoded
    again.

    Raises:
        UsageError: features of another shape than the run was trained on.
    """
    if features.width != run.inputs["width"] or features.layers < run.config.model.tokens:
        raise UsageError(
            f"the run takes {run.config.model.tokens} tokens of width {run.inputs['width']}, the features have "
            f"{features.layers} of width {features.width}",
            hint="score with features of the encoder that it was trained on",
        )
    settings = {"num_beams": num_beams, "max_length": max_length}
    name = f"{split}-{_digest(run, features, settings)}.jsonl"
    path = run.folder.path / "predictions" / name
    predictions = predict_samples(
        samples,
        path,
        lambda missing: decode_batches(
            run.model,
            run.text,
            features,
            missing,
            num_beams=num_beams,
            max_length=max_length,
            batch_size=batch_size,
        ),
    )
    training = chosen_samples(dataset, run.config, run.config.data.train_split)
    scores = {
        "run": run.folder.name,
        "modality": run.inputs["modality"],
        "split": split,
        "checkpoint_step": run.step,
        "blind": run.config.model.blind,
        "decode": settings,
        "samples_without_features": expected - len(samples),
        "tasks": score_predictions(samples, predictions, chance_predictions(training, samples)),
        "backends": backends(),
        "predictions": str(path),
    }
    write_atomically(run.folder.path / "scores.json", (json.dumps(scores, indent=2) + "\n").encode())
    return scores


def scores_path(run: LoadedRun) -> Path:
    """Where `score_run` writes."""
    return run.folder.path / "scores.json"


def _digest(run: LoadedRun, features: FeatureSource, settings: dict[str, int]) -> str:
    """Sixteen hex digits of what decides a prediction: trained tensors, frozen weights, features, decoding."""
    return digest_json(
        {
            "trained": digest_tensors(run.model.trainable_tensors()),
            "lm": run.inputs["lm"],
            "model": run.config.model.model_dump(mode="json"),
            "dtype": run.config.lm.dtype,
            "features": {key: value for key, value in features.describe().items() if key != "choice"},
            **settings,
        }
    )[:16]
