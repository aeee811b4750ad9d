"""`epalm score --predictions FILE`: scores of what anybody's model said; no run, no features, no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.samples import Modality

SUFFIX = ".scores.json"


def score_file(
    predictions: Path,
    data: str | None,
    modality: "Modality | None",
    split: str,
    limit: int | None,
    out: Path | None,
    metrics: Sequence[str],
) -> tuple[dict[str, Any], Path]:
    """Score the predictions in a file; the scores, and where they were written: `out`, else beside the file.

    Raises:
        UsageError: the file or the data cannot be used.
        EpalmError: the scores cannot be written.
    """
    from epalm.console import say, warn
    from epalm.datasets import load_dataset
    from epalm.evaluate.given import read_given, some
    from epalm.evaluate.metrics.chance import chance_predictions
    from epalm.evaluate.score_files import write_scores
    from epalm.evaluate.scoring import digest_samples, score_predictions

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
    asked = {one.id for one in given.predictions}
    tasks = {sample.task for sample in samples if sample.id in asked}
    expected = [sample for sample in samples if sample.task in tasks]  # COCO's results leave questions aside
    say(f"predictions: {predictions}; data: {data}, split {split}")
    alone = len(given.predictions) - given.compared
    if given.compared:
        say(f"{given.compared:,} of {len(given.predictions):,} have the question or the medium that the data have")
    if alone:
        say(f"{alone:,} of {len(given.predictions):,} go by their id alone: they have neither question nor medium")
    for name, difference in list(given.others.items())[:1]:
        warn(f"{len(given.others):,} are of another question or medium and are not scored; of {name!r}, {difference}")
    if given.unknown:
        warn(f"{len(given.unknown)} ids are not in the data and count for nothing: {some(given.unknown)}")
    if given.repeated:
        warn(f"{len(given.repeated)} ids are there more than once, with the same text: {some(given.repeated)}")
    missing = [sample.id for sample in expected if sample.id not in asked]
    if missing:
        warn(f"{len(missing)} of {len(expected)} samples have no prediction and are not scored: {some(missing)}")
    path = out or predictions.with_name(predictions.stem + SUFFIX)
    training = dataset.split("train")
    told = {
        "run": predictions.stem,
        "data": dataset.spec,
        "modality": " and ".join(sorted({sample.modality for sample in expected})),
        "split": split,
        "limit": limit,
        "samples": digest_samples(expected),
        "unknown_ids": len(given.unknown),
        "repeated_ids": len(given.repeated),
        "of_another_question_or_medium": len(given.others),
        "by_id_alone": alone,
        "predictions": str(predictions),
    }
    chance = chance_predictions(training, expected) if training and split != "train" else ()
    of = [sample for sample in there if sample.task in tasks]
    scores = score_predictions(expected, given.predictions, chance, metrics=metrics, split=of)
    return write_scores(path, told, scores), path
