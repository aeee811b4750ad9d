"""What decides a training, and so names it: equal keys, equal runs; and what differs between two runs, in words.

Where data, weights and cache lie decides nothing. Libraries' versions are no part of the key: they round differently at
most, and are recorded beside it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm import __version__
from epalm.console import first_in_words, say
from epalm.differences import change_in_words, differing_leaves
from epalm.errors import EpalmError, UsageError
from epalm.fingerprint import canonical_json
from epalm.recipes.config import Config
from epalm.samples import Sample
from epalm.train.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from epalm.train.data.features import FeatureSource

_TRAINING_CODE = 1  # raised when another version of this code gives other numbers from the same parts
# Of the settings: what other parts hold the digest of, and what decides nothing.
_NOT_DECIDING = {
    **{"lm": {"name"}, "encoder": {"weights"}, "data": {"shuffle"}},
    **{"description": True, "checkpoint": True},
}
NAMES_ONLY = {"set", "choice", "derived", "spec"}  # of features: the others decide the numbers
_SHOWN = 8  # changes; the rest is counted


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

    `lm` and `tokenizer` are their digests, `device` is the kind of device. The key is the digest of it all.
    """
    samples = {
        split: {
            "count": len(chosen),
            # Of a sample, what training reads. The order of answers counts: by it they are drawn.
            "content": _digest(
                [one.id, one.task.value, one.prompt, list(one.answers.items()), list(one.references)] for one in chosen
            ),
            "media": _digest(features.digests(chosen)),
        }
        for split, chosen in (("training", training), ("validation", validation))
    }
    parts = {
        "settings": config.model_dump(mode="json", exclude=_NOT_DECIDING),  # type: ignore[arg-type]
        **samples,
        "features": {key: value for key, value in features.describe().items() if key not in NAMES_ONLY},
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


def part_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which parts differ, each as "optim.peak_lr 2e-05 → 0.0001": first `one`'s, then `other`'s."""
    return [
        f"{path.removeprefix('settings.')} {change_in_words(was, now)}"
        for path, was, now in differing_leaves(one, other)
    ]


def version_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which versions of libraries differ between two records of inputs, as "torch 2.6.0 → 2.7.1"; else empty."""
    leaves = differing_leaves(was.get("versions", {}), now.get("versions", {}))
    return ", ".join(f"{name} {change_in_words(one, other)}" for name, one, other in leaves)


def known_keys(runs: Path) -> set[str]:
    """Of all runs below `runs`."""
    return {str(inputs["key"]) for _, inputs, _ in _trained(runs)}


def matching_run(runs: Path, inputs: Mapping[str, Any], *, name: str | None = None) -> RunFolder | None:
    """The run below `runs` of the same key, done or to go on with; None: a new one, and what changes is said.

    With `name`, only the folder of that name. Raises UsageError: that is another training's.
    """
    others = [(run, its, done) for run, its, done in _trained(runs) if name in (None, run.name)]
    same = [(run, done) for run, its, done in others if its["key"] == inputs["key"]]
    if usable := [run for run, done in same if done] or [run for run, _ in same]:
        return usable[-1]
    if not others:
        return None
    nearest, its, _ = min(reversed(others), key=lambda one: len([*differing_leaves(one[1]["parts"], inputs["parts"])]))
    changes = part_differences(its["parts"], inputs["parts"])
    if name is not None:
        raise UsageError(
            f"{nearest.path} is of another training: {'; '.join(changes)}", hint="give another --run, or none"
        )
    say(f"a new run; changed since {nearest.name}: {first_in_words(changes, _SHOWN, '; ')}")
    return None


def _trained(runs: Path) -> Iterator[tuple[RunFolder, dict[str, Any], bool]]:
    """The runs below `runs` that were trained here, with their inputs, and whether they are done; the oldest first."""
    for path in sorted(runs.glob("*/inputs.json"), key=lambda path: path.stat().st_mtime):
        run = RunFolder(path.parent)
        try:
            inputs, done = run.inputs, run.summary is not None
        except EpalmError:  # `epalm runs` shows the damage
            continue
        if isinstance(inputs, dict) and inputs.keys() >= {"parts", "key"}:
            yield run, inputs, done


def _digest(values: Iterable[Any]) -> str:
    hasher = hashlib.sha256()
    for value in values:
        hasher.update(canonical_json(value) + b"\n")
    return hasher.hexdigest()
