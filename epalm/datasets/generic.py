"""Samples, and the generic form of a user's own: one sample per JSON object, or per row of a table with the same keys.

Every fault names file, line and key. Media are not opened here: a missing file is the extraction's to report.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from sys import intern
from typing import Any

from epalm.datasets.entries import LISTS, Entry, read_rows
from epalm.datasets.text_file import NOT_JSON, require_characters
from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

SAMPLE_FILES = (".jsonl", ".json", ".csv", ".tsv")  # their extensions; the content decides the form
_KEYS = dict.fromkeys(("id", "modality", "media", "task", "split", "prompt", *LISTS, "question_type", "answer_type"))
LITERAL = re.compile(r"\s*(\[\s*['\"].*\]|\{\s*['\"].*\})\s*", re.DOTALL)  # meant as one; "[music]" is not
_MODALITIES, _TASKS = {one.value: one for one in Modality}, {one.value: one for one in Task}
_ENOUGH = 3  # people who agree make an answer fully right


class SampleList:
    """Samples whose ids are unique in a split and modality: predictions are matched by them."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._ids = defaultdict[tuple[str, Modality], set[str]](set)

    def add(self, sample: Sample, entry: Entry) -> None:
        """Take a sample that is made of an entry. Raises UsageError where its id is used twice."""
        ids = self._ids[sample.split, sample.modality]
        if sample.id in ids:
            raise entry.fault(f"id {sample.id!r} is used twice in split {sample.split!r}", "make ids unique in a split")
        ids.add(sample.id)
        self.samples.append(sample)


def read_samples(path: Path, root: Path | None = None) -> tuple[Sample, ...]:
    """All samples of a file of rows, in its order; media lie below `root`, or else the file's folder.

    Raises:
        UsageError: unreadable file, unknown or missing key, wrong value, id used twice in a split, or no sample.
    """
    samples = SampleList()
    folder = root or path.parent
    folders = [os.path.join(one, "") for one in (os.path.abspath(folder), os.path.realpath(folder))]  # noqa: PTH100, PTH118
    for entry in read_rows(path):
        values = entry.values
        if entry.columns:
            values.update((key, _cell(key, entry)) for key in LISTS if key in values)
        media = values.get("media")
        if isinstance(media, str) and (media[:1] == "/" or "\\" in media):
            values["media"] = _relative(media, folders)
        samples.add(to_sample(entry, f"{path.name}:{entry.number}"), entry)
    if not samples.samples:
        raise UsageError(f"{path} holds no sample")
    return tuple(samples.samples)


def _relative(media: str, folders: Sequence[str]) -> str:
    """An absolute path below the root, or one with backslashes, as one below it; others as they are."""
    if "\\" in media and not os.path.lexists(folders[0] + media):
        media = media.replace("\\", "/")
    for folder in folders:
        if media.startswith(folder) and ".." not in PurePosixPath(media).parts:
            return media.removeprefix(folder).lstrip("/")
    return media


def _cell(key: str, entry: Entry) -> Any:
    """A list or mapping column holds JSON; any other text in one stands for a single answer or reference."""
    text = entry.values[key]
    try:
        value = json.loads(text)
    except NOT_JSON:
        value = None
        if LITERAL.fullmatch(text):
            hint = f"write it as {LISTS[key]}"
            raise entry.fault(f"column {key!r} has {text[:60]}, which is not JSON", hint) from None
    if not isinstance(value, list | dict):  # a number, null or true: an answer as it is written
        return text if key == "answers" else [text]
    require_characters({key: value}, f"{entry.file}, {entry.where}")
    return value


def to_sample(entry: Entry, fallback_id: str) -> Sample:
    """An entry in the generic form as a sample. Raises UsageError."""
    values = entry.values
    if not values.keys() <= _KEYS.keys():
        unknown = next(key for key in values if key not in _KEYS)
        raise entry.fault(f"unknown key {unknown!r}", f"the keys are {', '.join(_KEYS)}")
    if type(values.get("id")) is int:
        values["id"] = str(values["id"])
    task, prompt = entry.choice("task", _TASKS), entry.text_or_none("prompt")
    if task is Task.QA and prompt is None:
        raise entry.fault("a qa sample needs 'prompt', the question")
    return build_sample(
        entry.text_or_none("id") or fallback_id,
        entry.choice("modality", _MODALITIES),
        entry.text("media"),
        task,
        entry.text("split"),
        prompt,
        entry.scores("answers") or None,
        entry.texts("raw_answers") if "raw_answers" in entry else (),
        entry.texts("references") if "references" in entry else (),
        (entry.text_or_none("question_type"), entry.text_or_none("answer_type")),
    )


def agreed_scores(raw_answers: Sequence[str]) -> dict[str, float]:
    """Each answer with VQA's official accuracy of giving it, before normalisation: of ten, 0.3, 0.6, 0.9, 1, …

    That is min(matches / 3, 1), averaged over leaving out each person in turn (Antol et al., VQA, ICCV 2015). It is not
    defined for one or two people, where no three can agree: their answers have their shares.
    """
    people = len(raw_answers)
    counts = Counter(filter(None, map(str.strip, raw_answers)))
    if people < _ENOUGH:
        return {answer: count / people for answer, count in counts.items()}
    return {answer: _agreed(count, people) for answer, count in counts.items()}


@lru_cache(maxsize=1024)
def _agreed(count: int, people: int) -> float:
    own, others = min(1.0, (count - 1) / _ENOUGH), min(1.0, count / _ENOUGH)
    return round((count * own + (people - count) * others) / people, 6)


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
        intern(media),
        task,
        intern(split),
        prompt and intern(prompt),
        _share_items(tuple(scores.items())),
        tuple(map(intern, raw_answers)),
        tuple(map(intern, references)),
        types[0] and intern(types[0]),
        types[1] and intern(types[1]),
        unanswerable=not scores and (answers is not None or bool(raw_answers)),
    )


@lru_cache(maxsize=1 << 16)
def _share_items(items: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
    return {intern(text): float(score) for text, score in items}
