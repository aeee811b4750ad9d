"""Predictions in a file, whoever made them, scored against data: no run, no features, no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epalm.console import say, warn
from epalm.datasets import load_dataset
from epalm.errors import UsageError
from epalm.evaluate.given import Given, read_given
from epalm.evaluate.metrics.chance import chance_predictions
from epalm.evaluate.score_files import write_scores
from epalm.evaluate.scoring import digest_samples, score_predictions
from epalm.samples import Modality

_SHOWN = 3  # ids that a message names


def score_given(
    predictions: Path,
    out: Path,
    *,
    data: str | None,
    modality: Modality | None = None,
    split: str = "test",
    limit: int | None = None,
    metrics: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score the predictions in a file, and write the scores to `out`; returns them.

    Raises:
        UsageError: the file or the data cannot be used.
        EpalmError: the scores cannot be written.
    """
    if data is None:
        raise UsageError("--predictions needs the data that they are of", hint="add --data")
    dataset = load_dataset(data, modality, media_here=False)
    there = dataset.split(split)
    samples = there[:limit]
    if not samples:
        splits = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise UsageError(f"data {data!r} has no samples in split {split!r}; it has {splits}", hint="--split")
    if len({sample.id for sample in samples}) < len(samples):
        raise UsageError(f"samples of several modalities have the same ids in split {split!r}", hint="add --modality")
    given = read_given(predictions, samples)
    predicted = {one.id for one in given.predictions}
    tasks = {sample.task for sample in samples if sample.id in predicted}
    expected = [sample for sample in samples if sample.task in tasks]  # COCO's results leave questions aside
    say(f"predictions: {predictions}; data: {data}, split {split}")
    _say_what_fits(given, [sample.id for sample in expected if sample.id not in predicted], len(expected))
    about = {
        "run": predictions.stem,
        "data": dataset.spec,
        "modality": " and ".join(sorted({sample.modality for sample in expected})),
        "split": split,
        "limit": limit,
        "samples": digest_samples(expected),
        "unknown_ids": len(given.unknown),
        "repeated_ids": len(given.repeated),
        "of_another_question_or_medium": len(given.others),
        "by_id_alone": len(given.predictions) - len(given.compared),
        "predictions": str(predictions),
    }
    training = dataset.split("train")
    chance = chance_predictions(training, expected) if training and split != "train" else ()
    of = [sample for sample in there if sample.task in tasks]
    return write_scores(out, about, score_predictions(expected, given.predictions, chance, metrics=metrics, split=of))


def _say_what_fits(given: Given, missing: Sequence[str], expected: int) -> None:
    count, compared = len(given.predictions), len(given.compared)
    if compared:
        say(f"{compared:,} of {count:,} have the question or the medium that the data have")
    if count > compared:
        say(f"{count - compared:,} of {count:,} go by their id alone: they have neither question nor medium")
    for name, difference in list(given.others.items())[:1]:
        warn(f"{len(given.others):,} are of another question or medium and are not scored; of {name!r}, {difference}")
    if given.unknown:
        warn(f"{len(given.unknown)} ids are not in the data and count for nothing: {_some(given.unknown)}")
    if given.repeated:
        warn(f"{len(given.repeated)} ids are there more than once, with the same text: {_some(given.repeated)}")
    if missing:
        warn(f"{len(missing)} of {expected} samples have no prediction and are not scored: {_some(missing)}")


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")
