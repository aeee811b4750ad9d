"""Predictions in a file, whoever made them: JSON lines, a JSON list, a table, or one object {id: text}.

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

from epalm.datasets.rows import Row, read_rows
from epalm.datasets.text_file import NOT_JSON, walk_json
from epalm.errors import UsageError
from epalm.evaluate.scoring import is_expected
from epalm.samples import Prediction, Sample, Task

# The key of the id → that of the text which goes with it, and others that may.
FORMS = {
    "id": ("text", "prediction"),
    "question_id": ("answer", "text", "prediction"),
    "questionId": ("prediction", "answer", "text"),
    "image_id": ("caption", "text", "prediction"),
}
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
