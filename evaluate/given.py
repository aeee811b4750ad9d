"""Predictions in a file, whoever made them, scored: JSON lines, a JSON list, a table, or one object {id: text}.

A row names its sample and the text predicted for it as `FORMS` says: ours, VQA's (visualqa.org/evaluation), GQA's, COCO
captions' (cocodataset.org/#format-results) or LLaVA's. Where a row also has the question or the medium, they have to be
those of the data. What does not fit is counted, or is one message.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from epalm.console import say, warn
from epalm.datasets import load_dataset
from epalm.datasets.entries import Entry, read_rows
from epalm.datasets.generic import LITERAL
from epalm.datasets.text_file import NOT_JSON, walk_json
from epalm.errors import UsageError
from epalm.evaluate.metrics.registry import choose_metrics
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.score_files import write_scores
from epalm.evaluate.scoring import chance_predictions, score_predictions
from epalm.evaluate.submission import plan_submission
from epalm.samples import Prediction, Sample, Task, with_links

# The key of the id → that of the text which goes with it, and others that may.
FORMS = {
    "id": ("text", "prediction"),
    "question_id": ("answer", "text", "prediction"),
    "questionId": ("prediction", "answer", "text"),
    "image_id": ("caption", "text", "prediction"),
}
_KEYS = {*FORMS, *(text for texts in FORMS.values() for text in texts)}
_HINT = " or ".join(f'{{"{key}": …, "{texts[0]}": "…"}}' for key, texts in FORMS.items())


@dataclass
class Given:
    """Predictions of samples that the data have, and what else a file holds."""

    predictions: list[Prediction] = field(default_factory=list)
    compared: set[str] = field(default_factory=set)  # ids whose question or medium is the data's; others: by id alone
    others: dict[str, str] = field(default_factory=dict)  # ids of another question or medium → the difference
    unknown: list[str] = field(default_factory=list)  # ids that the data do not have
    repeated: list[str] = field(default_factory=list)  # ids given twice alike


def score_given(request: ScoreRequest, out: Path) -> dict[str, Any]:
    """Score the predictions in `request.predictions`, and write the scores to `out`; returns them.

    Raises UsageError: the file or the data cannot be used; EpalmError: the scores cannot be written.
    """
    predictions, split = request.predictions, request.split
    if predictions is None or request.data is None:
        raise UsageError("--predictions needs the data that they are of", hint="add --data")
    data = with_links(request.data, follow=request.follow_links)
    dataset = load_dataset(data, request.modality, media_here=False)
    there = dataset.split(split)
    samples = there[: request.limit]
    if not samples:
        splits = ", ".join(sorted({sample.split for sample in dataset.samples}))
        raise UsageError(f"data {data!r} has no samples in split {split!r}; it has {splits}", hint="--split")
    if len({sample.id for sample in there}) < len(there):
        raise UsageError(f"samples of several modalities have the same ids in split {split!r}", hint="add --modality")
    given = read_given(predictions, there)
    predicted = {one.id for one in given.predictions}
    tasks = {sample.task for sample in there if sample.id in predicted}
    expected = [sample for sample in samples if sample.task in tasks]  # COCO's results leave questions aside
    say(f"predictions: {predictions}; data: {data}, split {split}")
    if by_id := len(predicted) - len(given.compared):
        say(f"{by_id:,} of {len(predicted):,} go by their id alone: they have neither question nor medium")
    if given.others:
        name, difference = next(iter(given.others.items()))
        warn(f"{len(given.others):,} are of another question or medium and are not scored; of {name!r}, {difference}")
    missing = [sample.id for sample in expected if sample.id not in predicted]
    for ids, what in (
        (given.unknown, "ids are not in the data and count for nothing"),
        (given.repeated, "ids are there more than once, with the same text"),
        (missing, f"of {len(expected)} samples have no prediction and are not scored"),
    ):
        if ids:
            warn(f"{len(ids)} {what}: {', '.join(map(repr, ids[:3]))}{', …' if len(ids) > 3 else ''}")
    submission = request.submission and plan_submission(request.submission, there, predicted)
    chance = chance_predictions(dataset.split("train") if split != "train" else (), expected)
    whole = [sample for sample in there if sample.task in tasks]
    metrics = choose_metrics(request.metrics)
    scores = score_predictions(expected, given.predictions, chance, metrics=metrics, split=whole)
    about = {
        "run": predictions.stem,
        "data": dataset.spec,
        "modality": " and ".join(sorted({sample.modality for sample in expected})),
        "split": split,
        "limit": request.limit,
        "unknown_ids": len(given.unknown),
        "repeated_ids": len(given.repeated),
        "of_another_question_or_medium": len(given.others),
        "by_id_alone": by_id,
        "predictions": str(predictions),
    }
    if submission:
        about["submission"] = str(submission_path(request, out))
    written = write_scores(out, about, scores)
    if submission:
        submission.write(submission_path(request, out), given.predictions, written)
    return written


def submission_path(request: ScoreRequest, out: Path) -> Path:
    """Where, beside the scores in `out`, the file that is to be handed on goes."""
    return out.with_name(f"{out.name.removesuffix('.json').removesuffix('.scores')}.{request.submission}.json")


def read_given(path: Path, samples: Sequence[Sample]) -> Given:
    """The predictions in a file, for these samples.

    Raises:
        UsageError: the file cannot be read, a row is of none of the forms, an id has two texts, or no row is of one of
            the samples.
    """
    known, given = {sample.id: sample for sample in samples}, Given()
    texts: dict[str, tuple[str, str]] = {}  # id → its text, and where that is
    for row in _rows(path):
        where = f"{path}, {row.where}"
        name, text = _entry(row, where)
        difference = _difference(row, known[name]) if name in known else None
        if difference:
            given.others[name] = difference
            continue
        if difference is not None:
            given.compared.add(name)
        if name in texts:
            given.repeated.append(name)
        before, first = texts.setdefault(name, (text, row.where))
        if before != text:
            raise UsageError(f"{where}: id {name!r} has another text than in {first}", hint="keep one for each id")
    given.predictions = [Prediction(name, text) for name, (text, _) in texts.items() if name in known]
    given.unknown = [name for name in texts if name not in known]
    given.others = {name: difference for name, difference in given.others.items() if name not in texts}
    if given.predictions:
        return given
    fault = "it holds no prediction"
    if given.others:
        name, difference = next(iter(given.others.items()))
        fault = f"all predictions of the data's ids are of another question or medium; of {name!r}, {difference}"
    elif texts:
        ours, theirs = samples[0].id, given.unknown[0]
        fault = f"none of its {len(texts)} ids, such as {theirs!r}, is one of the data's, such as {ours!r}"
    raise UsageError(f"{path}: {fault}", hint=f"check --data and --split; a prediction is {_HINT}")


def _rows(path: Path) -> Iterator[Entry]:
    """Those of the file; each member of one object {id: text} is one."""
    value: Any = None
    with suppress(OSError, *NOT_JSON):
        if path.is_file():  # a pipe would be waited for
            value = json.loads(path.read_text(encoding="utf-8-sig"))
    try:
        if isinstance(value, dict) and value and not value.keys() & _KEYS:
            yield from (Entry(path, name, 0, {"id": name, "text": text}) for name, _, text in walk_json(path))
        else:
            yield from read_rows(path)
    except UsageError as error:
        if "not JSON" not in error.message:
            raise
        raise UsageError(error.message, hint=f"one JSON object a line, or a list of them: {_HINT}") from error


def _entry(row: Entry, where: str) -> tuple[str, str]:
    """The id and the text. Raises UsageError."""
    keys = row.columns or tuple(row.values)
    key = next((key for key in FORMS if key in keys), None)
    if key is None or key not in row.values:
        raise UsageError(f"{where}: it has no {' or '.join(map(repr, [key] if key else FORMS))}", hint=_HINT)
    texts = [text for text in FORMS[key] if text in keys]
    if len(texts) > 1 and key != "id":  # our own text stands beside what else there is
        raise UsageError(f"{where}: there are both {texts[0]!r} and {texts[1]!r}", hint=f"keep the prediction: {_HINT}")
    if not texts:
        raise UsageError(f"{where}: {FORMS[key][0]!r} is missing", hint=_HINT)
    name, text = row.values[key], row.values.get(texts[0], "")
    for of, value, fits in (
        (key, name, isinstance(name, str | int)),
        (texts[0], text, isinstance(text, str) or (isinstance(text, int | float) and isfinite(text))),
    ):
        if not fits or isinstance(value, bool):
            raise UsageError(f"{where}: {of!r} is {value!r:.60}, not a text", hint=_HINT)
    if row.columns and LITERAL.fullmatch(str(text)):
        hint = f"write the text alone: one prediction a row, or {_HINT}"
        raise UsageError(f"{where}: {texts[0]!r} is {text!r:.60}, a list or mapping in Python's notation", hint=hint)
    return str(name), str(text)


def _difference(row: Entry, sample: Sample) -> str | None:
    """How question or medium of the row differ from the sample's, "" where they do not; None: it has neither."""
    difference = None
    for key in ("media", "image", "video", "audio", "prompt", "question"):
        is_question = key in ("prompt", "question")
        theirs, ours = row.values.get(key), sample.prompt if is_question else sample.media
        if not isinstance(theirs, str) or ours is None or (is_question and sample.task is not Task.QA):
            continue
        if is_question:  # it may stand on lines of its own, as where it goes on with how to answer
            same = f"\n{_plain(ours)}\n" in f"\n{_plain(theirs)}\n"
        else:
            same = f"/{theirs}".endswith(f"/{ours}") or f"/{ours}".endswith(f"/{theirs}")
        if not same:
            return f"{key!r} is {theirs!r:.60}, not {ours!r:.60}"
        difference = ""
    return difference


def _plain(question: str) -> str:
    lines = (" ".join(line.split()).casefold() for line in question.strip().splitlines())
    return "\n".join(line.rstrip("?").rstrip() for line in lines)
