"""The generic forms: one sample per JSON object, or per row of a table with the same columns.

Every fault names file, line and key. Media are not opened here: a missing file is the extraction's to report.
"""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from epalm.datasets.answers import agreed_scores
from epalm.datasets.paths import relative_to
from epalm.datasets.rows import NOT_JSON, read_rows
from epalm.datasets.sharing import Shared, UniqueIds, without_cycles
from epalm.datasets.text_file import HALF, require_characters
from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

SAMPLE_FILES = (".jsonl", ".json", ".csv", ".tsv")  # their extensions; the form is told from what is in them
_KEYS = ("id", "modality", "media", "task", "split", "prompt", "answers", "raw_answers", "references", "question_type",
         "answer_type")  # fmt: skip
_JSON_COLUMNS = ("answers", "raw_answers", "references")
_KNOWN, _REQUIRED = frozenset(_KEYS), frozenset(("modality", "media", "task", "split"))
_MODALITIES = {modality.value: modality for modality in Modality}
_TASKS = {task.value: task for task in Task}
Choice = TypeVar("Choice", Modality, Task)
_LITERAL = re.compile(
    r"\s*(\[\s*['\"].*\]|\{\s*['\"].*\})\s*", re.DOTALL
)  # meant as a list or mapping; "[music]" is not
_SHOWN = 400  # characters of a cell that a message shows as JSON
_NO_ANSWERS: Mapping[str, float] = {}
_NO_TEXTS: tuple[str, ...] = ()


class _Fault(Exception):  # noqa: N818 - says what is wrong with a row; the reader knows which row it is
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_samples(path: Path, root: Path | None = None) -> tuple[Sample, ...]:
    """All samples of a file of rows, in its order; media lie below `root`, or else the file's folder.

    Raises:
        UsageError: unreadable file, unknown or missing key, wrong value, id used twice in a split, or no sample.
    """
    samples: list[Sample] = []
    seen = UniqueIds()
    build = _Builder().sample
    relative = relative_to(root or path.parent)
    name = path.name
    try:
        where = ""
        with without_cycles():
            for where, row, of_table in read_rows(path):
                if of_table:
                    for key in _JSON_COLUMNS:
                        if key in row:
                            row[key] = _cell(key, row[key])
                media = row.get("media")
                if isinstance(media, str) and (media[:1] == "/" or "\\" in media):
                    row["media"] = relative(media)
                sample = build(row, f"{name}:{where.rpartition(' ')[2]}")
                seen.add(sample, f"{path}, {where}")
                samples.append(sample)
    except _Fault as fault:
        raise UsageError(f"{path}, {where}: {fault.message}", hint=fault.hint) from None
    if not samples:
        raise UsageError(f"{path} holds no sample")
    return tuple(samples)


def _cell(key: str, text: str) -> Any:
    """A list or mapping column holds JSON; any other text in one stands for a single answer or reference."""
    try:
        value = json.loads(text)
    except NOT_JSON:
        if not _LITERAL.fullmatch(text):
            return {text: 1.0} if key == "answers" else [text]
        shown = '{"cat": 1.0}' if key == "answers" else '["a cat", "a black cat"]'
        raise _Fault(f"column {key!r} has {text[:60]}, which is not JSON", f"write {_as_json(text) or shown}") from None
    if not isinstance(value, list | dict):  # a number, null or true: an answer as it is written
        return {text: 1.0} if key == "answers" else [text]
    if HALF.search(text):
        require_characters({key: value}, f"column {key!r}")
    return value


def _as_json(text: str) -> str | None:
    """A list or mapping in Python's notation as JSON, for a message."""
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False) if len(text) < _SHOWN else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


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
        name = str(given) if type(given) is int else given
        _require_text("id", name, or_none=True)
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
            name or fallback_id,
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
            raise _Fault(f"{key!r} must be a list of texts", f'"{key}": ["a cat", "a black cat"]')
        return self._shared.texts(value)

    def _answers(self, value: object) -> Mapping[str, float]:
        if not value:
            return _NO_ANSWERS
        if not isinstance(value, dict):
            raise _Fault("'answers' must map each answer to its score", '"answers": {"cat": 1.0}')
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
