"""The generic forms: one sample per JSON line, or per CSV row with the same columns.

Every fault names file, line and key. Media are not opened here: a missing file is the extraction's to report.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from epalm.datasets.answers import agreed_scores
from epalm.datasets.sharing import Shared, without_cycles
from epalm.datasets.text_file import reading
from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

_KEYS = ("id", "modality", "media", "task", "split", "prompt", "answers", "raw_answers", "references", "question_type",
         "answer_type")  # fmt: skip
_JSON_COLUMNS = ("answers", "raw_answers", "references")
_KNOWN, _REQUIRED = frozenset(_KEYS), frozenset(("modality", "media", "task", "split"))
_MODALITIES = {modality.value: modality for modality in Modality}
_TASKS = {task.value: task for task in Task}
Choice = TypeVar("Choice", Modality, Task)
_NOT_JSON = (ValueError, RecursionError)  # beside faults of form: numbers without end, brackets without end
_MAX_LINE = 1 << 20  # characters; one sample never needs more, and a file without line breaks is not JSONL
_NO_ANSWERS: Mapping[str, float] = {}
_NO_TEXTS: tuple[str, ...] = ()


class _Fault(Exception):  # noqa: N818 - says what is wrong with a row; the reader knows which row it is
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_samples(path: Path) -> tuple[Sample, ...]:
    """All samples of a `.jsonl` or `.csv` file, in file order.

    Raises:
        UsageError: unreadable file, unknown or missing key, wrong value, id used twice, or no sample.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    samples: list[Sample] = []
    seen: set[str] = set()
    build = _Builder().sample
    name, line = path.name, 0
    try:
        with without_cycles(), reading(path):
            for line, row in rows:
                sample = build(row, f"{name}:{line}")
                if sample.id in seen:
                    raise _Fault(f"id {sample.id!r} is used twice", "make ids unique")
                seen.add(sample.id)
                samples.append(sample)
    except _Fault as fault:
        raise UsageError(f"{path}, line {line}: {fault.message}", hint=fault.hint) from None
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
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except _NOT_JSON as error:
                raise _no_json(f"{path}, line {number}", error) from error
            if not isinstance(row, dict):
                raise UsageError(f"{path}, line {number}: expected an object with the keys {', '.join(_KEYS)}")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for cells in reader:
                if None in cells or None in cells.values():
                    fault = f"{'more' if None in cells else 'fewer'} cells than columns"
                    raise UsageError(f"{path}, line {reader.line_num}: {fault}")
                row = {key: cell for key, cell in cells.items() if cell != ""}
                for key in _JSON_COLUMNS:
                    if key in row:
                        row[key] = _cell(key, row[key], path, reader.line_num)
                yield reader.line_num, row
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _cell(key: str, text: str, path: Path, line: int) -> Any:
    """A list or mapping column holds JSON; a plain text in one stands for a single answer or reference."""
    if text[:1] not in "[{":
        return {text: 1.0} if key == "answers" else [text]
    return parse_json(text, f"{path}, line {line}, column {key!r}")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises UsageError that begins with `where`."""
    try:
        return json.loads(text)
    except _NOT_JSON as error:
        raise _no_json(where, error) from error


def _no_json(where: str, error: Exception) -> UsageError:
    return UsageError(f"{where}: not JSON ({str(error)[:80]})")


def to_sample(row: dict[str, Any], where: str, fallback_id: str) -> Sample:
    """A row in the generic form as a sample. Raises UsageError, which begins with `where` and names the key."""
    try:
        return _Builder().sample(row, fallback_id)
    except _Fault as fault:
        raise UsageError(f"{where}: {fault.message}", hint=fault.hint) from None


class _Builder:
    """From rows to samples. Texts and answers that rows share, as they often do, are kept once."""

    def __init__(self) -> None:
        self._shared = Shared()

    def sample(self, row: dict[str, Any], fallback_id: str) -> Sample:
        """One row as a sample. Raises _Fault."""
        if not _REQUIRED <= row.keys() <= _KNOWN:
            raise _Fault(*_wrong_keys(row))
        given, media, split, prompt = row.get("id"), row["media"], row["split"], row.get("prompt")
        _require_text("id", given, or_none=True)
        _require_text("media", media)
        _require_text("split", split)
        _require_text("prompt", prompt, or_none=True)
        types = row.get("question_type"), row.get("answer_type")
        _require_text("question_type", types[0], or_none=True)
        _require_text("answer_type", types[1], or_none=True)
        modality = _choice(_MODALITIES, Modality, row["modality"], "modality")
        task = _choice(_TASKS, Task, row["task"], "task")
        answers = self._answers(row.get("answers"))
        raw_answers = self._several(row.get("raw_answers"), "raw_answers")
        references = self._several(row.get("references"), "references")
        if task is Task.QA and prompt is None:
            raise _Fault("a qa sample needs 'prompt', the question")
        if raw_answers and not answers:
            answers = self._shared.scores(agreed_scores(raw_answers))
        share = self._shared.text
        return Sample(
            given or fallback_id,
            modality,
            share(media),
            task,
            share(split),
            None if prompt is None else share(prompt),
            answers,
            raw_answers,
            references,
            self._shared.maybe(types[0]),
            self._shared.maybe(types[1]),
            unanswerable=bool(raw_answers) and not answers,
        )

    def _several(self, value: object, key: str) -> tuple[str, ...]:
        if not value:
            return _NO_TEXTS
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise _Fault(f"{key!r} must be a list of texts")
        return self._shared.texts(value)

    def _answers(self, value: object) -> Mapping[str, float]:
        if not value:
            return _NO_ANSWERS
        if not isinstance(value, dict):
            raise _Fault("'answers' must map each answer to its score")
        for text, score in value.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 < score <= 1:
                raise _Fault(f"the score of answer {text!r} is {score!r}; it must be above 0, at most 1")
        return self._shared.scores(value)


def _wrong_keys(row: dict[str, Any]) -> tuple[str, str]:
    faults = [f"unknown key {key!r}" for key in row if key not in _KEYS]
    faults += [f"missing key {key!r}" for key in _KEYS if key in _REQUIRED and key not in row]
    return ", ".join(faults), f"the keys are {', '.join(_KEYS)}"


def _require_text(key: str, value: object, *, or_none: bool = False) -> None:
    fine = bool(value) and not value.isspace() if isinstance(value, str) else or_none and value is None
    if not fine:
        raise _Fault(f"{key!r} must be a text that is not empty")


def _choice(known: Mapping[str, Choice], kind: type[Choice], value: object, key: str) -> Choice:
    choice = known.get(value) if isinstance(value, str) else None
    if choice is None:
        raise _Fault(f"{key!r} is {value!r}", f"use one of: {', '.join(kind)}")
    return choice
