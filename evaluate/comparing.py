"""Two or more scorings of the same samples: differences with their intervals and p-values, and what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epalm.errors import UsageError
from epalm.evaluate.metrics.bootstrap import TEST, difference, resampling
from epalm.evaluate.metrics.metric import Measured, Metric
from epalm.evaluate.metrics.registry import judge, metrics
from epalm.evaluate.score_files import ScoreFiles

_Lines = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Side:
    files: ScoreFiles
    lines: _Lines


def compare(first: ScoreFiles, others: Sequence[ScoreFiles], *, examples: int) -> dict[str, Any]:
    """Each of `others` against `first`, as JSON values; differences are `other - first`.

    Raises:
        UsageError: they were scored on different samples, or a file is damaged.
    """
    for other in others:
        _require_same(first, other)
    base = _Side(first, first.per_sample())
    return {
        "first": first.name,
        "data": first.told["data"],
        "split": first.told["split"],
        "interval": f"paired {resampling()}",
        "test": TEST,
        "comparisons": [_pair(base, _Side(other, other.per_sample()), examples) for other in others],
    }


def _require_same(first: ScoreFiles, other: ScoreFiles) -> None:
    if first.told["samples"] == other.told["samples"]:
        return
    one, two = (
        f"{files.name}: {files.told['data']}, split {files.told['split']}, {_expected(files)} samples"
        for files in (first, other)
    )
    raise UsageError(
        f"these were scored on different samples ({one}; {two})", hint="score both with the same --data and --split"
    )


def _expected(files: ScoreFiles) -> int:
    return sum(task["expected"] for task in files.told["tasks"].values())


def _pair(first: _Side, other: _Side, examples: int) -> dict[str, Any]:
    tasks = {}
    for task in first.files.told["tasks"]:
        ids = [name for name, line in first.lines.items() if line["task"] == task and name in other.lines]
        if not ids:
            continue
        told = first.files.told["tasks"][task]
        media = _media(first.lines, other.lines, ids)
        figures = told.get("figures", {})
        measures: dict[str, Any] = {}
        for name, metric in metrics().items():
            found = _difference(metric, first.lines, other.lines, media, figures.get(name, told))
            measures |= {name: found} if found else {}
        either = {name for side in (first, other) for name in side.files.told["tasks"].get(task, {}).get("metrics", ())}
        tasks[task] = {
            "samples": len(ids),
            "left_out": told["expected"] - len(ids),  # not scored in both
            "measures": measures,
            "one_sided": sorted(either - measures.keys()),
            "changed": _changed(first.lines, other.lines, ids, examples),
        }
    return {"other": other.files.name, "tasks": tasks}


def _difference(
    metric: Metric, first: _Lines, other: _Lines, media: Mapping[str, str], counts: Mapping[str, int]
) -> dict[str, Any] | None:
    key = metric.counts or metric.name
    both = [one for one in media if key in first[one]["scores"] and key in other[one]["scores"]]
    if not both:
        return None
    one, two = (_measured(metric, [lines[name]["scores"][key] for name in both]) for lines in (first, other))
    return {
        "measure": metric.name,
        "samples": len(both),
        "scored": len(both),
        "expected": counts["expected"],
        "of": counts.get("of", counts["expected"]),
        **difference(one, two, [media[name] for name in both]),
    }


def _measured(metric: Metric, values: Sequence[Any]) -> Measured:
    return Measured(np.array(values, dtype=np.float64).reshape(len(values), -1), metric.aggregate)


def _media(first: _Lines, other: _Lines, ids: Sequence[str]) -> dict[str, str]:
    """Id → what the sample is about: the digest of its medium where either scoring knew it, else its name."""
    either = [line for lines in (other, first) for line in lines.values()]
    digests = {line["media"]: str(line["digest"]) for line in either if "digest" in line}
    media = {one: str(first[one]["media"]) for one in ids}
    return {one: digests.get(name, name) for one, name in media.items()}


def _changed(first: _Lines, other: _Lines, ids: Sequence[str], examples: int) -> dict[str, Any]:
    """How many samples say something else, which of them score better or worse, and those that changed most."""
    name = judge(first[ids[0]]["scores"].keys() & other[ids[0]]["scores"].keys())
    texts = sum(first[one]["text"] != other[one]["text"] for one in ids)
    if name is None:
        return {"texts": texts, "by": None, "better": 0, "worse": 0, "examples": []}
    moved = [one for one in ids if name in first[one]["scores"] and name in other[one]["scores"]]
    change = {one: other[one]["scores"][name] - first[one]["scores"][name] for one in moved}
    order = sorted((one for one in moved if change[one]), key=lambda one: (-abs(change[one]), one))
    return {
        "texts": texts,
        "by": name,
        "better": sum(value > 0 for value in change.values()),
        "worse": sum(value < 0 for value in change.values()),
        "examples": [_example(first[one], other[one], name) for one in order[:examples]],
    }


def _example(first: Mapping[str, Any], other: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        **{key: first[key] for key in ("id", "media", "prompt")},
        "first": first["text"],
        "other": other["text"],
        "first_score": first["scores"][name],
        "other_score": other["scores"][name],
    }
