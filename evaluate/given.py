"""Predictions in a file, whoever made them, scored: JSON lines, a JSON list, a table, or one object {id: text}.

A row names its sample and the text predicted for it as `FORMS` says: ours, VQA's (visualqa.org/evaluation), GQA's, COCO
captions' (cocodataset.org/#format-results) or LLaVA's. Where a row also has the question or the medium, they have to be
those of the data. What does not fit is counted, or is one message.
"""

import ast
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from epalm.console import say, warn
from epalm.datasets import load_dataset
from epalm.datasets.rows import Row, read_rows
from epalm.datasets.text_file import NOT_JSON, walk_json
from epalm.errors import UsageError
from epalm.evaluate.metrics.chance import chance_predictions
from epalm.evaluate.metrics.registry import choose_metrics
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.score_files import write_scores
from epalm.evaluate.scoring import digest_samples, is_expected, score_predictions
from epalm.samples import Prediction, Sample, Task, with_links

# The key of the id → that of the text which goes with it, and others that may.
FORMS = {
    "id": ("text", "prediction"),
    "question_id": ("answer", "text", "prediction"),
    "questionId": ("prediction", "answer", "text"),
    "image_id": ("caption", "text", "prediction"),
}
_SHOWN = 3  # ids that a message names
_KEYS = {*FORMS, *(text for texts in FORMS.values() for text in texts)}
_QUESTIONS, _MEDIA = ("prompt", "question"), ("media", "image", "video", "audio")
_HINT = " or ".join(f'{{"{key}": …, "{texts[0]}": "…"}}' for key, texts in FORMS.items())


@dataclass
class Given:
    """Predictions of samples that the data have, and what else a file holds.

    `unknown` are ids that the data do not have, `repeated` those given twice alike. `others` are ids → the difference,
    of predictions of another question or medium. `compared` are ids whose question or medium is the data's; the rest
    went by the id alone.
    """

    predictions: list[Prediction] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    compared: set[str] = field(default_factory=set)


def score_given(request: ScoreRequest, out: Path) -> dict[str, Any]:
    """Score the predictions in `request.predictions`, and write the scores to `out`; returns them.

    Raises:
        UsageError: the file or the data cannot be used.
        EpalmError: the scores cannot be written.
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
        "limit": request.limit,
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
    metrics = choose_metrics(request.metrics)
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
    if not given.predictions:
        for name, difference in given.others.items():
            raise UsageError(
                f"{path}: all predictions of the data's ids are of another question or medium; of {name!r}, "
                f"{difference}",
                hint="check --data and --split; without these keys predictions go by their id alone",
            )
        if not texts:
            raise UsageError(f"{path} holds no prediction", hint=f"one a line: {_HINT}")
        ours = next((sample.id for sample in samples if is_expected(sample)), samples[0].id)
        raise UsageError(
            f"{path}: none of its {len(texts)} ids, such as {given.unknown[0]!r}, is one of the data's {len(samples)} "
            f"samples, such as {ours!r}",
            hint="check --data and --split",
        )
    given.others = {name: difference for name, difference in given.others.items() if name not in texts}
    return given


def _rows(path: Path) -> Iterator[Row]:
    """Those of the file; each member of one object {id: text} is one."""
    try:
        if path.is_file() and _is_mapping(path):
            yield from (Row(repr(name), {"id": name, "text": text}) for name, _, text in walk_json(path))
        else:
            yield from read_rows(path)
    except UsageError as error:
        if "not JSON" not in error.message:
            raise
        raise UsageError(error.message, hint=f"one JSON object a line, or a list of them: {_HINT}") from error


def _is_mapping(path: Path) -> bool:
    """Whether it is one JSON object without any of the keys of a row."""
    with suppress(OSError, *NOT_JSON):
        value = json.loads(path.read_text(encoding="utf-8-sig"))
        return isinstance(value, dict) and bool(value) and not value.keys() & _KEYS
    return False


def _entry(row: Row, where: str) -> tuple[str, str]:
    """The id and the text. Raises UsageError."""
    keys = row.columns or tuple(row.values)
    key = next((key for key in FORMS if key in keys), None)
    if key is None or key not in row.values:
        raise UsageError(f"{where}: it has no {' or '.join(map(repr, [key] if key else FORMS))}", hint=_HINT)
    name = row.values[key]
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise UsageError(f"{where}: {key!r} is {name!r}, neither a text nor a whole number", hint=_HINT)
    texts = [text for text in FORMS[key] if text in keys]
    if len(texts) > 1 and key != "id":  # our own text stands beside what else there is
        raise UsageError(f"{where}: there are both {texts[0]!r} and {texts[1]!r}", hint=f"keep the prediction: {_HINT}")
    if not texts:
        raise UsageError(f"{where}: {FORMS[key][0]!r} is missing", hint=_HINT)
    return str(name), _text(row.values.get(texts[0], ""), f"{where}: {texts[0]!r}", bool(row.columns))


def _text(value: Any, where: str, of_table: bool) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise UsageError(f"{where} is {_short(value)}, not a text", hint=_HINT)
    if of_table and _is_literal(value):
        hint = f"write the text alone: one prediction a row, or {_HINT}"
        raise UsageError(f"{where} is {_short(value)}, a list or mapping in Python's notation", hint=hint)
    return value


def _is_literal(text: str) -> bool:
    with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text[:1] in "[{(" and isinstance(ast.literal_eval(text), list | dict | tuple)
    return False


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{value!r:.60}…"


def _difference(row: Row, sample: Sample) -> str | None:
    """How question or medium of the row differ from the sample's, "" where they do not; None: it has neither."""
    difference = None
    pairs = [(key, sample.media, _same_medium) for key in _MEDIA]
    if sample.prompt is not None and sample.task is Task.QA:
        pairs += [(key, sample.prompt, _same_question) for key in _QUESTIONS]
    for key, ours, same in pairs:
        theirs = row.values.get(key)
        if isinstance(theirs, str):
            if not same(theirs, ours):
                return f"{key!r} is {_short(theirs)}, not {_short(ours)}"
            difference = ""
    return difference


def _same_medium(theirs: str, ours: str) -> bool:
    return f"/{theirs}".endswith(f"/{ours}") or f"/{ours}".endswith(f"/{theirs}")


def _same_question(theirs: str, ours: str) -> bool:
    """Whether it is the question, or has it on lines of its own, as where it goes on with how to answer."""
    theirs, ours = (
        "\n".join(" ".join(line.split()).casefold().rstrip("?").rstrip() for line in text.strip().splitlines())
        for text in (theirs, ours)
    )
    return f"\n{ours}\n" in f"\n{theirs}\n"
