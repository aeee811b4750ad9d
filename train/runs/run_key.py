"""What decides a training, and so names it: equal keys, equal runs. Where data, weights and cache lie does not.

Libraries' versions are no part of it: they round differently at most, and are recorded beside it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers

from epalm import __version__
from epalm.fingerprint import canonical_json, digest_json
from epalm.samples import Sample
from epalm.train.data.features import HashedSource
from epalm.train.prepare import Prepared

_TRAINING_CODE = 1  # raised when another version of this code gives other numbers from the same parts
_ELSEWHERE = {"lm": {"name"}, "encoder": {"weights"}}  # settings that name what other parts hold the digest of
_NOT_DECIDING = {"description", "checkpoint"}
_NAMES_ONLY = {"set", "choice"}  # of features: the others decide the numbers


def run_parts(
    ready: Prepared, features: HashedSource, training: Sequence[Sample], validation: Sequence[Sample]
) -> dict[str, Any]:
    """Everything that decides the training, as JSON: settings, samples, media, features, language model."""
    exclude: dict[str, Any] = {**_ELSEWHERE, **dict.fromkeys(_NOT_DECIDING, True)}
    parts = {
        "settings": ready.config.model_dump(mode="json", exclude=exclude),
        "training": _samples(training, features),
        "validation": _samples(validation, features),
        "features": {key: value for key, value in features.describe().items() if key not in _NAMES_ONLY},
        "lm": {"weights": ready.lm, "tokenizer": ready.text.digest},
        "training_code": _TRAINING_CODE,
        "device": ready.device.type,
    }
    plain: dict[str, Any] = json.loads(canonical_json(parts))
    return plain


def library_versions() -> dict[str, str]:
    """What the same parts give the same bits with."""
    return {"epalm": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


def run_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the parts."""
    return digest_json(parts)


def _samples(samples: Sequence[Sample], features: HashedSource) -> dict[str, Any]:
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
