"""Predictions on disk: a line each, saved as they come, and reused where their key is wanted again.

Knows keys and files; does not know how a prediction comes about.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cache.objects.durable import take_lock
from epalm.console import progress, say
from epalm.errors import EpalmError
from epalm.evaluate.decoding.prediction_keys import Asked, differences
from epalm.samples import Prediction, Sample
from epalm.train.runs.run_folder import require_room, writing

_LEAST = 100  # bytes that a prediction takes at least, written
_NEW = "of samples that are new"
_UNKEYED = "without a key, of an earlier version"


@dataclass(frozen=True, slots=True)
class Kept:
    """A line of a file; without a key where an earlier version wrote it."""

    id: str
    text: str
    key: str | None
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Reuse:
    """What is there of what is asked. `texts` by key; `to_decode` has one sample of each key that is not there.

    `to_copy` has one of each key whose text is in another file. `reused` samples have a text already, `shared` ones get
    that of an equal sample in `to_decode`. `reasons` says how many of `to_decode` have no text, and why.
    """

    texts: Mapping[str, str]
    to_copy: tuple[Asked, ...]
    to_decode: tuple[Asked, ...]
    reused: int
    shared: int
    reasons: Mapping[str, int]

    def in_words(self) -> str:
        """As "12 reused, 24 decoded anew: 20 with another question, 4 with another medium"."""
        told = f"{self.reused:,} reused"
        if self.shared:
            told += f", {self.shared:,} equal to another one"
        if not self.to_decode:
            return f"{told}, none decoded anew"
        if self.reasons.keys() == {_NEW}:
            return f"{told}, {len(self.to_decode):,} decoded for the first time"
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        return f"{told}, {len(self.to_decode):,} decoded anew: {why}"


def find_reusable(asked: Sequence[Asked], path: Path) -> Reuse:
    """What `path` holds of what is asked, or another file beside it: of another split, say."""
    by_key = {one.key: one for one in reversed(asked)}  # the first of equal ones
    here = {one.key: one.text for one in read_kept(path) if one.key in by_key}
    files, texts = [path], dict(here)
    if len(here) < len(by_key):
        files += [other for other in sorted(path.parent.glob("*.jsonl")) if other != path]
        there = {one.key: one.text for file in files[1:] for one in read_kept(file) if one.key in by_key}
        texts = there | here
    firsts = [one for one in asked if by_key[one.key] is one]
    to_decode = tuple(one for one in firsts if one.key not in texts)
    reused = sum(one.key in texts for one in asked)
    return Reuse(
        texts=texts,
        to_copy=tuple(one for one in firsts if one.key in texts and one.key not in here),
        to_decode=to_decode,
        reused=reused,
        shared=len(asked) - reused - len(to_decode),
        reasons=_reasons(to_decode, files),
    )


def predict_samples(
    asked: Sequence[Asked], path: Path, decode: Callable[[Sequence[Sample]], Iterator[list[Prediction]]]
) -> list[Prediction]:
    """Predictions of all samples: those that are kept are reused, the others decoded and appended to `path`.

    Raises:
        EpalmError: they cannot be written, there is too little room, or another process is writing them.
    """
    if not path.exists():  # before anything is made
        require_room(path.parent, _LEAST * len({one.key for one in asked}))
    with _alone(path):
        _cut_torn_line(path)
        found = find_reusable(asked, path)
        require_room(path.parent, _LEAST * len(found.to_copy + found.to_decode))
        say(f"predictions: {found.in_words()}")
        texts = dict(found.texts)
        if found.to_copy:
            _append(path, b"".join(prediction_line(texts[one.key], one) for one in found.to_copy))
        if found.to_decode:
            by_id = {one.sample.id: one for one in found.to_decode}
            with progress("score", len(by_id), "samples") as advance:
                for batch in decode([one.sample for one in found.to_decode]):
                    texts |= {by_id[one.id].key: one.text for one in batch}
                    _append(path, b"".join(prediction_line(one.text, by_id[one.id]) for one in batch))
                    advance(len(batch))
    return [Prediction(one.sample.id, texts[one.key]) for one in asked]


def read_kept(path: Path) -> Iterator[Kept]:
    """The lines of a file, one by one; empty, torn and other ones are passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value: Any = json.loads(line)
                key = str(value["key"]) if "key" in value else None
                yield Kept(str(value["id"]), str(value["text"]), key, dict(value.get("inputs", {})))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


def prediction_line(text: str, asked: Asked) -> bytes:
    """A prediction as its file holds it: beside the text, what was asked and what decided it."""
    sample = asked.sample
    told = {"id": sample.id, "text": text, "media": sample.media, "prompt": sample.prompt}
    value = {**told, "key": asked.key, "inputs": _short(asked.inputs)}
    # A lone surrogate, as of a name that is not UTF-8, becomes its escape, which JSON reads back.
    return (json.dumps(value, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _short(inputs: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:16] for name, value in inputs.items()}


def _reasons(to_decode: Sequence[Asked], files: Sequence[Path]) -> dict[str, int]:
    """How many have no text for which reason, the commonest first."""
    inputs = [_short(one.inputs) for one in to_decode]
    near: dict[Any, list[Kept]] = {one.sample.id: [] for one in to_decode}  # lines of the same id, and of
    near |= {_subject(one): [] for one in inputs}  # the same question and medium
    for line in (line for file in files if to_decode for line in read_kept(file)):
        for place in (line.id, _subject(line.inputs)):
            if place in near:
                near[place].append(line)
    counts = Counter(
        _reason(short, [*near[one.sample.id], *near[_subject(short)]])
        for one, short in zip(to_decode, inputs, strict=True)
    )
    return dict(counts.most_common())


def _subject(inputs: Mapping[str, Any]) -> tuple[str, str]:
    return str(inputs.get("question")), str(inputs.get("medium"))


def _reason(inputs: Mapping[str, Any], lines: Sequence[Kept]) -> str:
    """What differs in the nearest of the lines."""
    changes = [differences(line.inputs, inputs) for line in lines if line.key is not None]
    if changes:
        fewest = min(changes, key=len)
        return f"with {' and '.join(fewest)}"
    return _UNKEYED if lines else _NEW


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from decoding into the same file, for as long as this one lives."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not take_lock(descriptor):
            raise EpalmError(f"another process is decoding into {path}", hint="wait until it has ended")
        yield
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    """Take away what a kill has left of a line at the end."""
    with writing(path.parent):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _append(path: Path, lines: bytes) -> None:
    with writing(path.parent), path.open("ab") as file:
        file.write(lines)
