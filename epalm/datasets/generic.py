"""The generic forms: one sample per JSON line, or per CSV row with the same columns.

Every fault names file, line and key. Media are not opened here: a missing file is the extraction's to report.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

_KEYS = ("id", "modality", "media", "task", "split", "prompt", "answers", "raw_answers", "references")
_REQUIRED = ("modality", "media", "task", "split")
_JSON_COLUMNS = ("answers", "raw_answers", "references")
Choice = TypeVar("Choice", Modality, Task)
_MAX_LINE = 1 << 20  # characters; one sample never needs more, and a file without line breaks is not JSONL


def read_samples(path: Path) -> tuple[Sample, ...]:
    """All samples of a `.jsonl` or `.csv` file, in file order.

    Raises:
        UsageError: unreadable file, unknown or missing key, wrong value, id used twice, or no sample.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    samples: list[Sample] = []
    seen: set[str] = set()
    try:
        for line, row in rows:
            sample = to_sample(row, f"{path}, line {line}", fallback_id=f"{path.name}:{line}")
            if sample.id in seen:
                raise UsageError(f"{path}, line {line}: id {sample.id!r} is used twice", hint="make ids unique")
            seen.add(sample.id)
            samples.append(sample)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from error
    if not samples:
        raise UsageError(f"{path} holds no sample")
    return tuple(samples)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        number = 0
        while line := file.readline(_MAX_LINE + 1):
            number += 1
            if len(line) > _MAX_LINE:
                raise UsageError(f"{path}, line {number}: longer than {_MAX_LINE} characters; this is not JSONL")
            if not line.strip():
                continue
            row = parse_json(line, f"{path}, line {number}")
            if not isinstance(row, dict):
                raise UsageError(f"{path}, line {number}: expected an object with the keys {', '.join(_KEYS)}")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if None in cells or None in cells.values():
                    raise UsageError(f"{where}: {'more' if None in cells else 'fewer'} cells than columns")
                row = {key: cell for key, cell in cells.items() if cell != ""}
                yield reader.line_num, {key: _cell(key, value, where) for key, value in row.items()}
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _cell(key: str, text: str, where: str) -> Any:
    """A list or mapping column holds JSON; a plain text in one stands for a single answer or reference."""
    if key not in _JSON_COLUMNS:
        return text
    if text[:1] not in "[{":
        return {text: 1.0} if key == "answers" else [text]
    return parse_json(text, f"{where}, column {key!r}")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises UsageError that begins with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # beside faults of form: numbers without end, brackets without end
        raise UsageError(f"{where}: not JSON ({str(error)[:80]})") from error


def to_sample(row: dict[str, Any], where: str, fallback_id: str) -> Sample:
    """A row in the generic form as a sample. Raises UsageError, which begins with `where` and names the key."""
    unknown = [key for key in row if key not in _KEYS]
    missing = [key for key in _REQUIRED if key not in row]
    if unknown or missing:
        faults = [f"unknown key {key!r}" for key in unknown] + [f"missing key {key!r}" for key in missing]
        raise UsageError(f"{where}: {', '.join(faults)}", hint=f"the keys are {', '.join(_KEYS)}")
    for key in ("id", "media", "split", "prompt"):
        if key in row and row[key] is not None and (not isinstance(row[key], str) or not row[key].strip()):
            raise UsageError(f"{where}: {key!r} must be a text that is not empty")
    modality = _choice(Modality, row["modality"], "modality", where)
    task = _choice(Task, row["task"], "task", where)
    answers = _answers(row.get("answers") or {}, where)
    raw_answers = _texts(row.get("raw_answers") or [], "raw_answers", where)
    references = _texts(row.get("references") or [], "references", where)
    prompt = row.get("prompt")
    if task is Task.QA and prompt is None:
        raise UsageError(f"{where}: a qa sample needs 'prompt', the question")
    return Sample(
        row.get("id") or fallback_id,
        modality,
        row["media"],
        task,
        row["split"],
        prompt,
        answers or {answer: raw_answers.count(answer) / len(raw_answers) for answer in raw_answers},
        raw_answers,
        references,
    )


def _choice(kind: type[Choice], value: object, key: str, where: str) -> Choice:
    try:
        return kind(str(value))
    except ValueError:
        raise UsageError(f"{where}: {key!r} is {value!r}", hint=f"use one of: {', '.join(kind)}") from None


def _texts(value: object, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{where}: {key!r} must be a list of texts")
    return tuple(value)


def _answers(value: object, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: 'answers' must map each answer to its score")
    for text, score in value.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 < score <= 1:
            raise UsageError(f"{where}: the score of answer {text!r} is {score!r}; it must be above 0, at most 1")
    return {text: float(score) for text, score in value.items()}
