"""Predictions on disk: a line each, saved as they come, and reused where all that decides one is the same.

What decides a prediction makes its key: the question's words, the medium's bytes, the task, the text template, the
decoding, the weights and the features; neither the sample's id, nor its place, nor what is expected of it. Only what is
drawn goes by the id too. Does not know how a prediction comes about.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epalm.cache.objects.durable import take_lock
from epalm.console import progress, say
from epalm.errors import EpalmError
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.fingerprint import digest_json
from epalm.samples import Prediction, Sample, Task
from epalm.train.data.features import FeatureSource
from epalm.train.runs.loading import LoadedRun
from epalm.train.runs.run_folder import require_room, writing

_VERSION = 1  # raised when code changes what is decoded by itself
_NAMES_ONLY = {"set", "choice"}  # of features: the others decide the numbers
_LEAST = 100  # bytes that a prediction takes at least, written
_NEW = "of samples that are new"
_UNKEYED = "without a key, of an earlier version"
_WORDS = {
    "question": "another question",
    "medium": "another medium",
    "task": "another task",
    "template": "another tokenizer",
    "decoding": "another decoding",
    "weights": "other weights",
    "features": "other features",
    "draw": "another id, by which it is drawn",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A sample, the inputs that decide its prediction (name → SHA-256), and the digest of these."""

    sample: Sample
    inputs: Mapping[str, str]
    key: str


def what_decides(
    run: LoadedRun, features: FeatureSource, samples: Sequence[Sample], decode: DecodeOptions
) -> list[Asked]:
    """Each sample with what decides its prediction."""
    of_task = {
        Task.QA: run_inputs(run, features, decode),
        Task.CAPTION: run_inputs(run, features, replace(decode, answers=())),
    }
    asked = []
    for sample, medium in zip(samples, features.digests(samples), strict=True):
        own = {"task": sample.task.value, "question": digest_json(run.text.question(sample)), "medium": medium}
        drawn = {"draw": digest_json(sample.id)} if decode.sampling else {}
        inputs = {**own, **of_task[sample.task], **drawn}
        asked.append(Asked(sample, inputs, digest_json(inputs)))
    return asked


def run_inputs(run: LoadedRun, features: FeatureSource, decode: DecodeOptions) -> dict[str, str]:
    """What decides the predictions of all samples."""
    numbers = {key: value for key, value in features.describe().items() if key not in _NAMES_ONLY}
    return {
        "template": run.text.digest,
        "decoding": digest_json([_VERSION, decode.deciding()]),
        "weights": digest_json(run.decides()),
        "features": digest_json(numbers),
    }


@dataclass(frozen=True)
class Reuse:
    """Which of the samples asked about have a text already."""

    texts: Mapping[str, str]  # by key
    to_copy: tuple[Asked, ...]  # one sample of each key whose text is in another file
    to_decode: tuple[Asked, ...]  # one sample of each key that has no text
    reused: int  # samples that have one
    shared: int  # samples that get that of an equal sample in `to_decode`
    reasons: Mapping[str, int]  # how many of `to_decode` have none, and why

    def summary(self) -> str:
        """As "12 reused, 24 decoded anew: 20 with another question, 4 with another medium"."""
        shared = f", {self.shared:,} equal to another one" if self.shared else ""
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        anew = f"{len(self.to_decode):,} decoded anew: {why}" if self.to_decode else "none decoded anew"
        if self.reasons.keys() == {_NEW}:
            anew = f"{len(self.to_decode):,} decoded for the first time"
        return f"{self.reused:,} reused{shared}, {anew}"


def find_reusable(asked: Sequence[Asked], path: Path) -> Reuse:
    """What `path` holds of what is asked, or another file beside it: of another split, say."""
    firsts = {one.key: one for one in reversed(asked)}  # the first of equal ones
    here = {line["key"]: line["text"] for line in read_lines(path) if line["key"] in firsts}
    files, texts = [path], here
    if len(here) < len(firsts):
        files += [other for other in sorted(path.parent.glob("*.jsonl")) if other != path]
        lines = (line for file in files[1:] for line in read_lines(file))
        texts = {line["key"]: line["text"] for line in lines if line["key"] in firsts} | here
    once = [one for one in asked if firsts[one.key] is one]
    to_decode = tuple(one for one in once if one.key not in texts)
    reused = sum(one.key in texts for one in asked)
    return Reuse(
        texts=texts,
        to_copy=tuple(one for one in once if one.key in texts and one.key not in here),
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
        say(f"predictions: {found.summary()}")
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


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The `id`, `text`, `key` and `inputs` of each line of a file; empty, torn and other lines are passed over.

    `key` is None where an earlier version wrote the line.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value: Any = json.loads(line)
                one = {"id": str(value["id"]), "text": str(value["text"]), "inputs": dict(value.get("inputs", {}))}
                yield {**one, "key": str(value["key"]) if "key" in value else None}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


def prediction_line(text: str, asked: Asked) -> bytes:
    """A prediction as its file holds it: beside the text, what was asked and what decided it."""
    sample = asked.sample
    subject = {"id": sample.id, "text": text, "media": sample.media, "prompt": sample.prompt}
    value = {**subject, "key": asked.key, "inputs": _short(asked.inputs)}
    # A lone surrogate, as of a name that is not UTF-8, becomes its escape, which JSON reads back.
    return (json.dumps(value, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _short(inputs: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:16] for name, value in inputs.items()}


def _reasons(to_decode: Sequence[Asked], files: Sequence[Path]) -> dict[str, int]:
    """How many have no text for which reason, the commonest first.

    That is what differs in the nearest of the lines of the same id, or of the same question and medium.
    """
    asked = [(one.sample.id, _subject(inputs), inputs) for one in to_decode for inputs in [_short(one.inputs)]]
    near: dict[Any, list[dict[str, Any]]] = {place: [] for name, subject, _ in asked for place in (name, subject)}
    for line in (line for file in files if to_decode for line in read_lines(file)):
        for place in near.keys() & {line["id"], _subject(line["inputs"])}:
            near[place].append(line)
    counts: Counter[str] = Counter()
    for name, subject, inputs in asked:
        lines = near[name] + near[subject]
        differences = [_differences(line["inputs"], inputs) for line in lines if line["key"] is not None]
        if differences:
            fewest = min(differences, key=len)
            counts[f"with {' and '.join(fewest)}"] += 1
        else:
            counts[_UNKEYED if lines else _NEW] += 1
    return dict(counts.most_common())


def _subject(inputs: Mapping[str, Any]) -> tuple[str, str]:
    return str(inputs.get("question")), str(inputs.get("medium"))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which inputs differ that both have."""
    return [words for name, words in _WORDS.items() if name in one and name in other and one[name] != other[name]]


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
