"""Predictions on disk: a line each, saved as they come, and reused where all that decides one is the same.

What decides a prediction makes its key: the question's words, the medium's bytes, the task, the text template, the
decoding, the weights and the features; neither the sample's id, nor its place, nor what is expected of it. Only what is
drawn goes by the id too. Does not know how a prediction comes about.
"""

import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
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
from epalm.train.runs.run_key import NAMES_ONLY

_VERSION = 1  # raised when code changes what is decoded by itself
_LEAST = 100  # bytes that a prediction takes at least, written


@dataclass(frozen=True, slots=True)
class Asked:
    """A sample, and what decides its prediction."""

    sample: Sample
    key: str  # the digest of all that does
    medium: str = ""  # SHA-256 of its bytes


def what_decides(
    run: LoadedRun, features: FeatureSource, samples: Sequence[Sample], decode: DecodeOptions, split: str
) -> tuple[list[Asked], Path]:
    """Each sample with what decides its prediction, and the file of the split's predictions."""

    shared = {
        "template": run.text.digest,
        "weights": digest_json(run.decides()),
        "features": digest_json({key: value for key, value in features.describe().items() if key not in NAMES_ONLY}),
    }
    of_task = {
        task: shared | {"decoding": digest_json([_VERSION, options.deciding()])}
        for task, options in ((Task.QA, decode), (Task.CAPTION, replace(decode, answers=())))
    }
    asked = []
    for sample, medium in zip(samples, features.digests(samples), strict=True):
        own = {"question": digest_json(run.text.question(sample)), "medium": medium, "task": sample.task.value}
        inputs = own | of_task[sample.task] | ({"draw": digest_json(sample.id)} if decode.sampling else {})
        asked.append(Asked(sample, digest_json(inputs), medium))
    digest = digest_json(of_task[Task.QA])
    return asked, run.folder.path / "predictions" / f"{split}-{digest[:16]}.jsonl"


@dataclass(frozen=True)
class Reuse:
    """Which of the samples asked about have a text already."""

    texts: dict[str, str]  # by key
    to_copy: list[Asked]  # one sample of each key whose text is in another file
    to_decode: list[Asked]  # one sample of each key that has no text
    reused: int  # samples that have one
    shared: int  # samples that get that of an equal sample in `to_decode`


def find_reusable(asked: Sequence[Asked], path: Path) -> Reuse:
    """What `path` holds of what is asked, or another file beside it: of another split, say."""
    once = list({one.key: one for one in reversed(asked)}.values())[::-1]  # the first of equal ones
    keys = {one.key for one in once}
    here = {line["key"]: line["text"] for line in read_lines(path) if line["key"] in keys}
    texts = here
    if len(here) < len(once):
        lines = (line for file in sorted(path.parent.glob("*.jsonl")) if file != path for line in read_lines(file))
        texts = {line["key"]: line["text"] for line in lines if line["key"] in keys} | here
    to_copy = [one for one in once if one.key in texts and one.key not in here]
    to_decode = [one for one in once if one.key not in texts]
    reused = sum(one.key in texts for one in asked)
    return Reuse(texts, to_copy, to_decode, reused, len(asked) - reused - len(to_decode))


def predict_samples(
    asked: Sequence[Asked], path: Path, decode: Callable[[Sequence[Sample]], Generator[list[Prediction]]]
) -> list[Prediction]:
    """Predictions of all samples: those that are kept are reused, the others decoded and appended to `path`.

    Raises EpalmError: they cannot be written, there is too little room, or another process is writing them.
    """
    if not path.exists():  # before anything is made
        require_room(path.parent, _LEAST * len(asked))
    with _alone(path):
        reuse = find_reusable(asked, path)
        require_room(path.parent, _LEAST * len(reuse.to_copy + reuse.to_decode))
        texts, shared = reuse.texts, f", {reuse.shared:,} equal to another one" if reuse.shared else ""
        say(f"predictions: {reuse.reused:,} reused{shared}, {len(reuse.to_decode):,} to decode")
        if reuse.to_copy:
            _append(path, [prediction_line(texts[one.key], one) for one in reuse.to_copy])
        if reuse.to_decode:
            by_id = {one.sample.id: one for one in reuse.to_decode}
            batches = decode([one.sample for one in reuse.to_decode])
            with closing(batches), progress("score", len(by_id), "samples") as advance:
                for batch in batches:
                    texts |= {by_id[one.id].key: one.text for one in batch}
                    _append(path, [prediction_line(one.text, by_id[one.id]) for one in batch])
                    advance(len(batch))
    return [Prediction(one.sample.id, texts[one.key]) for one in asked]


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """The `id`, `text` and `key` of each line of a file; empty, torn and other lines are passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value: Any = json.loads(line)
                yield {key: str(value[key]) for key in ("id", "text", "key")}
            except (ValueError, KeyError, TypeError):
                continue


def prediction_line(text: str, asked: Asked) -> bytes:
    """A prediction as its file holds it: beside the text, what was asked and the key."""
    sample = asked.sample
    line = {"id": sample.id, "text": text, "media": sample.media, "prompt": sample.prompt, "key": asked.key}
    # A lone surrogate, as of a name that is not UTF-8, becomes its escape, which JSON reads back.
    return f"{json.dumps(line, ensure_ascii=False)}\n".encode(errors="backslashreplace")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from decoding into the same file, as long as this one does; a torn last line is cut."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        if not take_lock(file.fileno()):
            raise EpalmError(f"another process is decoding into {path}", hint="wait until it has ended")
        with writing(path.parent):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        yield


def _append(path: Path, lines: Sequence[bytes]) -> None:
    with writing(path.parent), path.open("ab") as file:
        file.write(b"".join(lines))
