"""What decides a prediction, and so names it: equal keys, equal texts.

That is the question's words, the medium's bytes, the task, the text template, the decoding, the weights and the
features; neither the sample's id, nor its place, nor what is expected of it. Only what is drawn goes by the id too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.fingerprint import digest_json
from epalm.samples import Sample, Task
from epalm.train.data.features import HashedSource
from epalm.train.runs.loading import LoadedRun

_VERSION = 1  # raised when code changes what is decoded by itself
_NAMES_ONLY = {"set", "choice"}  # of features: the others decide the numbers
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
    run: LoadedRun, features: HashedSource, samples: Sequence[Sample], decode: DecodeOptions
) -> list[Asked]:
    """Each sample with what decides its prediction."""
    of_task = {
        Task.QA: run_inputs(run, features, decode),
        Task.CAPTION: run_inputs(run, features, replace(decode, answers=())),
    }
    words: dict[str, str] = {}
    asked = []
    for sample, medium in zip(samples, features.digests(samples), strict=True):
        question = run.text.question(sample)
        if question not in words:
            words[question] = digest_json(question)
        own = {"task": sample.task.value, "question": words[question], "medium": medium}
        drawn = {"draw": digest_json(sample.id)} if decode.sampling else {}
        inputs = {**own, **of_task[sample.task], **drawn}
        asked.append(Asked(sample, inputs, digest_json(inputs)))
    return asked


def run_inputs(run: LoadedRun, features: HashedSource, decode: DecodeOptions) -> dict[str, str]:
    """What decides the predictions of all samples."""
    numbers = {key: value for key, value in features.describe().items() if key not in _NAMES_ONLY}
    return {
        "template": run.text.digest,
        "decoding": digest_json([_VERSION, decode.deciding()]),
        "weights": digest_json(run.decides()),
        "features": digest_json(numbers),
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which inputs differ that both have, each as "another question"."""
    return [words for name, words in _WORDS.items() if name in one and name in other and one[name] != other[name]]
