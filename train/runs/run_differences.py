"""What differs between the inputs that decided two runs, in words. Knows no run folder and loads no library."""

from collections.abc import Mapping
from typing import Any

from epalm.differences import change_in_words, differing_leaves

# What the parts are called where their names do not say it.
_WORDS = {
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

_FORMER = "versions"  # were parts once, and are recorded beside them


def part_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which parts differ, each as "optim.peak_lr 2e-05 → 0.0001": first `one`'s, then `other`'s."""
    leaves = [leaf for leaf in differing_leaves(one, other) if leaf[0].partition(".")[0] != _FORMER]
    return [f"{_name(path)} {change_in_words(was, now)}" for path, was, now in leaves]


def version_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which versions of libraries differ between two records of inputs, as "torch 2.6.0 → 2.7.1"; else empty."""
    leaves = differing_leaves(_versions(was), _versions(now))
    return ", ".join(f"{name} {change_in_words(one, other)}" for name, one, other in leaves)


def _versions(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("versions") or inputs.get("parts", {}).get("versions", {})


def _name(path: str) -> str:
    return _WORDS.get(path, path.removeprefix("settings."))
