"""Samples, and the generic forms: one sample per JSON object, or per row of a table with the same columns.

Every fault names file, line and key. Media are not opened here: a missing file is the extraction's to report.
"""

import gc
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from epalm.datasets.paths import relative_to
from epalm.datasets.rows import read_rows
from epalm.datasets.text_file import NOT_JSON, require_characters
from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

SAMPLE_FILES = (".jsonl", ".json", ".csv", ".tsv")  # their extensions; the content decides the form
_KEYS = ("id", "modality", "media", "task", "split", "prompt", "answers", "raw_answers", "references", "question_type",
         "answer_type")  # fmt: skip
_KNOWN, _REQUIRED = frozenset(_KEYS), frozenset(("modality", "media", "task", "split"))
_TEXTS = ("id", "media", "split", "prompt", "question_type", "answer_type")
_LISTS = {
    "answers": '{"cat": 1.0}',
    "raw_answers": '["a cat", "a black cat"]',
    "references": '["a cat", "a black cat"]',
}
_LITERAL = re.compile(  # meant as a list or mapping; "[music]" is not
    r"\s*(\[\s*['\"].*\]|\{\s*['\"].*\})\s*", re.DOTALL
)
_MODALITIES, _TASKS = {one.value: one for one in Modality}, {one.value: one for one in Task}
Choice = TypeVar("Choice", Modality, Task)
ENOUGH = 3  # people who agree make an answer fully right


def read_samples(path: Path, root: Path | None = None) -> tuple[Sample, ...]:
    """All samples of a file of rows, in its order; media lie below `root`, or else the file's folder.

    Raises:
        UsageError: unreadable file, unknown or missing key, wrong value, id used twice in a split, or no sample.
    """
    samples: list[Sample] = []
    ids = UniqueIds()
    relative = relative_to(root or path.parent)
    for where, row, columns in read_rows(path):
        try:
            if columns:
                row.update((key, _cell(key, row[key])) for key in _LISTS if key in row)
            media = row.get("media")
            if isinstance(media, str) and (media[:1] == "/" or "\\" in media):
                row["media"] = relative(media)
            sample = to_sample(row, f"{path.name}:{where.rpartition(' ')[2]}")
            ids.add(sample)
        except UsageError as error:
            raise error.at(f"{path}, {where}") from None
        samples.append(sample)
    if not samples:
        raise UsageError(f"{path} holds no sample")
    return tuple(samples)


def to_sample(row: dict[str, Any], fallback_id: str) -> Sample:
    """A row in the generic form as a sample.

    Raises:
        UsageError: names the key, and leaves the place of the row to the caller.
    """
    if not _REQUIRED <= row.keys() <= _KNOWN:
        faults = [f"unknown key {key!r}" for key in row if key not in _KNOWN]
        faults += [f"missing key {key!r}" for key in _KEYS if key in _REQUIRED and key not in row]
        raise UsageError(", ".join(faults), hint=f"the keys are {', '.join(_KEYS)}")
    if type(row.get("id")) is int:
        row["id"] = str(row["id"])
    for key in _TEXTS:
        value = row.get(key)
        if (not value or value.isspace()) if isinstance(value, str) else value is not None or key in _REQUIRED:
            raise UsageError(f"{key!r} must be a text that is not empty")
    modality, task = _choice(_MODALITIES, row, "modality"), _choice(_TASKS, row, "task")
    answers, prompt = row.get("answers") or None, row.get("prompt")
    if answers is not None and not isinstance(answers, dict):
        raise UsageError("'answers' must map each answer to its score", hint=f'"answers": {_LISTS["answers"]}')
    for text, score in (answers or {}).items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 < score <= 1:
            raise UsageError(f"the score of answer {text!r} is {score!r}; it must be above 0, at most 1")
    raw_answers, references = row.get("raw_answers") or [], row.get("references") or []
    for key, texts in ("raw_answers", raw_answers), ("references", references):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{key!r} must be a list of texts", hint=f'"{key}": {_LISTS[key]}')
    if task is Task.QA and prompt is None:
        raise UsageError("a qa sample needs 'prompt', the question")
    name, types = row.get("id") or fallback_id, (row.get("question_type"), row.get("answer_type"))
    return build_sample(
        name, modality, row["media"], task, row["split"], prompt, answers, raw_answers, references, types
    )


def _choice(known: Mapping[str, Choice], row: dict[str, Any], key: str) -> Choice:
    value = row[key]
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{key!r} is {value!r}", hint=f"use one of: {', '.join(known)}")
    return known[value]


def _cell(key: str, text: str) -> Any:
    """A list or mapping column holds JSON; any other text in one stands for a single answer or reference."""
    try:
        value = json.loads(text)
    except NOT_JSON:
        if _LITERAL.fullmatch(text):
            raise UsageError(
                f"column {key!r} has {text[:60]}, which is not JSON", hint=f"write it as {_LISTS[key]}"
            ) from None
        value = None
    if not isinstance(value, list | dict):  # a number, null or true: an answer as it is written
        return {text: 1.0} if key == "answers" else [text]
    if "\\u" in text:
        require_characters({key: value}, f"column {key!r}")
    return value


def agreed_scores(raw_answers: Sequence[str]) -> dict[str, float]:
    """Each answer with VQA's official accuracy of giving it, before normalisation: of ten, 0.3, 0.6, 0.9, 1, …

    That is min(matches / 3, 1), averaged over leaving out each person in turn (Antol et al., VQA, ICCV 2015). It is not
    defined for one or two people, where no three can agree: their answers have their shares.
    """
    people = len(raw_answers)
    counts = Counter(filter(None, map(str.strip, raw_answers)))
    if people < ENOUGH:
        return {answer: count / people for answer, count in counts.items()}
    return {answer: score for answer, count in counts.items() if (score := _agreed(count, people)) > 0}


@lru_cache(maxsize=1024)
def _agreed(count: int, people: int) -> float:
    own, others = min(1.0, (count - 1) / ENOUGH), min(1.0, count / ENOUGH)
    return round((count * own + (people - count) * others) / people, 6)


# The first of equal texts: samples often share prompts, media and answers.
share = lru_cache(maxsize=1 << 16)(str)


def build_sample(
    name: str,
    modality: Modality,
    media: str,
    task: Task,
    split: str,
    prompt: str | None = None,
    answers: Mapping[str, float] | None = None,
    raw_answers: Sequence[str] = (),
    references: Sequence[str] = (),
    types: tuple[str | None, str | None] = (None, None),
) -> Sample:
    """A sample whose texts and answers are shared with others.

    Without `answers`, they are scored by how many of the `raw_answers` agree; where none is given, any is wrong.
    """
    scores = agreed_scores(raw_answers) if answers is None else answers
    return Sample(
        name,
        modality,
        share(media),
        task,
        share(split),
        prompt and share(prompt),
        _share_items(tuple(scores.items())),
        tuple(map(share, raw_answers)),
        tuple(map(share, references)),
        types[0] and share(types[0]),
        types[1] and share(types[1]),
        unanswerable=not scores and (answers is not None or bool(raw_answers)),
    )


@lru_cache(maxsize=1 << 16)
def _share_items(items: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
    return {share(text): float(score) for text, score in items}


class UniqueIds:
    """Ids are unique among the samples of one split and modality: predictions are matched by them."""

    def __init__(self) -> None:
        self._seen = defaultdict[tuple[str, Modality], set[str]](set)

    def add(self, sample: Sample) -> None:
        """Note a sample's id. Raises UsageError where it is used twice."""
        ids = self._seen[sample.split, sample.modality]
        if sample.id in ids:
            raise UsageError(
                f"id {sample.id!r} is used twice in split {sample.split!r}", hint="make ids unique in a split"
            )
        ids.add(sample.id)


@contextmanager
def without_cycles() -> Iterator[None]:
    """Without the search for reference cycles: samples have none, and walking a million again and again takes long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
