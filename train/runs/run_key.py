"""What decides a training, and so names it: equal keys, equal runs; and what differs between two runs, in words.

Where data, weights and cache lie decides nothing. Libraries' versions are no part of the key: they round differently at
most, and are recorded beside it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epalm import __version__
from epalm.config import Config
from epalm.differences import change_in_words, differing_leaves
from epalm.fingerprint import canonical_json, digest_json
from epalm.samples import Sample

if TYPE_CHECKING:
    from epalm.train.data.features import FeatureSource

_TRAINING_CODE = 1  # raised when another version of this code gives other numbers from the same parts
_ELSEWHERE = {"lm": {"name"}, "encoder": {"weights"}}  # settings that name what other parts hold the digest of
_NOT_DECIDING = {"description", "checkpoint"}
_NAMES_ONLY = {"set", "choice"}  # of features: the others decide the numbers
# What the parts are called where their names do not say it.
_PART_NAMES = {
    "training.count": "training samples",
    "training.content": "content of the training samples",
    "training.media": "training media",
    "validation.count": "validation samples",
    "validation.content": "content of the validation samples",
    "validation.media": "validation media",
    "features.fingerprint": "feature set",
    "lm.weights": "weights of the language model",
    "lm.tokenizer": "tokenizer",
    "device": "kind of device",
    "training_code": "version of the training code",
}

_FORMER_PART = "versions"  # were parts once, and are recorded beside them


def run_parts(
    config: Config,
    features: "FeatureSource",
    training: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    lm: str,
    tokenizer: str,
    device: str,
) -> dict[str, Any]:
    """Everything that decides the training, as JSON: settings, samples, media, features, language model.

    `lm` and `tokenizer` are their digests, `device` is the kind of device.
    """
    exclude: dict[str, Any] = {**_ELSEWHERE, **dict.fromkeys(_NOT_DECIDING, True)}
    parts = {
        "settings": config.model_dump(mode="json", exclude=exclude),
        "training": _samples(training, features),
        "validation": _samples(validation, features),
        "features": {key: value for key, value in features.describe().items() if key not in _NAMES_ONLY},
        "lm": {"weights": lm, "tokenizer": tokenizer},
        "training_code": _TRAINING_CODE,
        "device": device,
    }
    plain: dict[str, Any] = json.loads(canonical_json(parts))
    return plain


def library_versions() -> dict[str, str]:
    """What the same parts give the same bits with."""
    import torch
    import transformers

    return {"epalm": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


def run_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the parts."""
    return digest_json(parts)


def part_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which parts differ, each as "optim.peak_lr 2e-05 → 0.0001": first `one`'s, then `other`'s."""
    leaves = [leaf for leaf in differing_leaves(one, other) if leaf[0].partition(".")[0] != _FORMER_PART]
    return [f"{_part_name(path)} {change_in_words(was, now)}" for path, was, now in leaves]


def version_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which versions of libraries differ between two records of inputs, as "torch 2.6.0 → 2.7.1"; else empty."""
    leaves = differing_leaves(_versions(was), _versions(now))
    return ", ".join(f"{name} {change_in_words(one, other)}" for name, one, other in leaves)


def _samples(samples: Sequence[Sample], features: "FeatureSource") -> dict[str, Any]:
    """How many, and digests of what they say and of what their media hold, both in their order."""
    return {
        "count": len(samples),
        "content": _digest(_content(sample) for sample in samples),
        "media": _digest(features.digests(samples)),
    }


def _content(sample: Sample) -> list[Any]:
    """Of a sample, what training reads. The order of answers counts: by it they are drawn."""
    return [sample.id, sample.task.value, sample.prompt, list(sample.answers.items()), list(sample.references)]


def _digest(values: Iterator[Any] | Sequence[Any]) -> str:
    hasher = hashlib.sha256()
    for value in values:
        hasher.update(canonical_json(value) + b"\n")
    return hasher.hexdigest()


def _versions(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("versions") or inputs.get("parts", {}).get("versions", {})


def _part_name(path: str) -> str:
    return _PART_NAMES.get(path, path.removeprefix("settings."))
