"""Predictions that others made, as files: JSON lines, a JSON list, a table, or one object {id: text}.

A row names its sample and what was said of it as `FORMS` has it: ours, VQA's (visualqa.org/evaluation), GQA's, COCO
captions' (cocodataset.org/#format-results) or LLaVA's. Where a row also has the question or the medium, they have to be
those of the data. Nothing is guessed: what does not fit is counted, or one message.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

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
_TEXTS = frozenset(name for names in FORMS.values() for name in names)
_QUESTIONS, _MEDIA = ("prompt", "question"), ("media", "image", "video", "audio")
_HINT = " or ".join(f'{{"{key}": …, "{texts[0]}": "…"}}' for key, texts in FORMS.items())


@dataclass(frozen=True)
class Given:
    """Predictions of samples that the data have.

    `unknown` are ids that the data do not have, `repeated` those given twice alike. `others` are ids → what differs, of
    predictions of another question or medium. `compared` counts those whose question or medium is the data's; the rest
    went by the id alone.
    """

    predictions: tuple[Prediction, ...]
    unknown: tuple[str, ...]
    repeated: tuple[str, ...]
    others: Mapping[str, str]
    compared: int


def read_given(path: Path, samples: Sequence[Sample]) -> Given:
    """The predictions in a file, for these samples.

    Raises:
        UsageError: the file cannot be read, a row is of none of the forms, an id has two texts, or no row is of one of
            the samples.
    """
    known, found = {sample.id: sample for sample in samples}, dict[str, tuple[str, str]]()
    repeated: list[str] = []
    others: dict[str, str] = {}
    compared: set[str] = set()
    rows = list(_rows(path))
    keys = _keys(rows, path)
    for row in rows:
        where = f"{path}, {row.where}"
        name, text = _entry(row, keys, where)
        difference = _difference(row, known[name]) if name in known else None
        if difference:
            others[name] = difference
            continue
        if difference is not None:
            compared.add(name)
        if name in found:
            before, first = found[name]
            if before != text:
                raise UsageError(
                    f"{where}: id {name!r} has another text than in {first}", hint="keep one prediction for each id"
                )
            repeated.append(name)
        else:
            found[name] = text, row.where
    if not found and not others:
        raise UsageError(f"{path} holds no prediction", hint=f"one a line: {_HINT}")
    predictions = tuple(Prediction(name, text) for name, (text, _) in found.items() if name in known)
    if not predictions:
        raise _nothing_fits(path, samples, [*found], others)
    unknown = tuple(name for name in found if name not in known)
    others = {name: difference for name, difference in others.items() if name not in found}
    return Given(predictions, unknown, tuple(repeated), others, len(compared))


def _nothing_fits(
    path: Path, samples: Sequence[Sample], unknown: Sequence[str], others: Mapping[str, str]
) -> UsageError:
    for name, difference in others.items():
        return UsageError(
            f"{path}: all predictions of the data's ids are of another question or medium; of {name!r}, {difference}",
            hint="check --data and --split; without these keys predictions go by their id alone",
        )
    ours = next((sample.id for sample in samples if is_expected(sample)), samples[0].id)
    return UsageError(
        f"{path}: none of its {len(unknown)} ids, such as {unknown[0]!r}, is one of the data's {len(samples)} samples, "
        f"such as {ours!r}",
        hint="check --data and --split",
    )


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
    """Whether it is one JSON object without any of the keys of a row, on one line or on many."""
    with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8-sig") as file:
        lines = (line.strip() for line in file if not line.isspace())
        first = next(lines, "")
        try:
            value = json.loads(first)
        except NOT_JSON:
            return first.startswith("{") and first.endswith(("{", ","))  # it goes on below
        keys = FORMS.keys() | _TEXTS
        return isinstance(value, dict) and bool(value) and not value.keys() & keys and next(lines, None) is None
    return False


def _keys(rows: Sequence[Row], path: Path) -> dict[str, set[str]]:
    """Key of the id → all keys that rows with it have; of a table, whose rows leave out empty cells, its heading."""
    found: dict[str, set[str]] = {}
    for row in rows:
        key = next((key for key in FORMS if key in row.values), None)
        if key is not None:
            found.setdefault(key, set()).update(row.values)
    if rows and rows[0].of_table:
        with path.open(encoding="utf-8-sig") as file:
            heading = next(line for line in file if not line.isspace())
        names = {name.strip().strip('"') for name in re.split("[,;\t]", heading)}
        found = {key: found.get(key, set()) | names for key in FORMS if key in names}
    return found


def _entry(row: Row, keys: Mapping[str, set[str]], where: str) -> tuple[str, str]:
    """The id and the text. Raises UsageError."""
    values = row.values
    key = next((key for key in FORMS if key in (keys if row.of_table else values)), None)
    if key is None or key not in values:
        named = " or ".join(repr(key) for key in FORMS)
        raise UsageError(f"{where}: it has no {named if key is None else repr(key)}", hint=_HINT)
    name = values[key]
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise UsageError(f"{where}: {key!r} is {name!r}, neither a text nor a whole number", hint=_HINT)
    texts = [text for text in FORMS[key] if text in keys[key]]
    if len(texts) > 1 and key != "id":  # our own text stands beside what else there is
        raise UsageError(
            f"{where}: there are both {texts[0]!r} and {texts[1]!r}",
            hint=f"keep the one that holds the prediction: {_HINT}",
        )
    if not texts or not (row.of_table or texts[0] in values):
        raise UsageError(f"{where}: {(texts or FORMS[key])[0]!r} is missing", hint=_HINT)
    said = values.get(texts[0], "")
    if isinstance(said, int | float) and not isinstance(said, bool) and isfinite(said):
        said = str(said)
    if not isinstance(said, str):
        raise UsageError(f"{where}: {texts[0]!r} is {_short(said)}, not a text", hint=_HINT)
    if row.of_table and _is_literal(said):
        raise UsageError(
            f"{where}: {texts[0]!r} is {_short(said)}, a list or mapping in Python's notation",
            hint=f"write the text alone: one prediction a row, or {_HINT}",
        )
    return str(name), said


def _is_literal(text: str) -> bool:
    with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text[:1] in "[{(" and isinstance(ast.literal_eval(text), list | dict | tuple)
    return False


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{value!r:.60}…"


def _difference(row: Row, sample: Sample) -> str | None:
    """What the row has of question and medium that is not the sample's, in words, else ""; None: it has neither."""
    found = None
    for key in (*_QUESTIONS, *_MEDIA):
        given = row.values.get(key)
        ours = sample.prompt if key in _QUESTIONS else sample.media
        if not isinstance(given, str) or ours is None or (key in _QUESTIONS and sample.task is not Task.QA):
            continue
        if not (_asks(given, ours) if key in _QUESTIONS else given == ours or _ends(given, ours) or _ends(ours, given)):
            return f"{key!r} is {_short(given)}, not {_short(ours)}"
        found = ""
    return found


def _asks(given: str, question: str) -> bool:
    """Whether it is the question, or has it on lines of its own, as where it goes on with how to answer."""
    given, question = ("\n".join(map(_plain, text.strip().splitlines())) for text in (given, question))
    return f"\n{question}\n" in f"\n{given}\n"


def _plain(line: str) -> str:
    return " ".join(line.split()).casefold().rstrip("?").rstrip()


def _ends(path: str, end: str) -> bool:
    return path.endswith(f"/{end}")
