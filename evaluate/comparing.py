"""Two or more scorings of the same samples: differences with their intervals and p-values, and what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epalm.errors import UsageError
from epalm.evaluate.metrics.bootstrap import TEST, count_media, p_value, paired_interval, resampling
from epalm.evaluate.metrics.figure import interval_figures
from epalm.evaluate.metrics.measures import COUNTS, METRICS, Measure, of_sums
from epalm.evaluate.score_files import ScoreFiles

_Lines = Mapping[str, Mapping[str, Any]]
# What a sample is said to have changed by: the first of these that both scorings have of it.
PER_SAMPLE = ("VQA accuracy", "exact match", "CIDEr", "METEOR", "ROUGE-L", "SPICE")


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
        counts = {name: told.get("figures", {}).get(name, told) for name in METRICS}
        differences = [_difference(name, first.lines, other.lines, media, counts[name]) for name in METRICS]
        measures = {one["measure"]: one for one in differences if one}
        either = {name for side in (first, other) for name in side.files.told["tasks"].get(task, {}).get("metrics", ())}
        tasks[task] = {
            "samples": len(ids),
            "left_out": told["expected"] - len(ids),  # not scored in both
            "measures": measures,
            "one_sided": [name for name in METRICS if name in either and name not in measures],
            "changed": _changed(first.lines, other.lines, ids, examples),
        }
    return {"other": other.files.name, "tasks": tasks}


def _difference(
    name: str, first: _Lines, other: _Lines, media: Mapping[str, str], counts: Mapping[str, int]
) -> dict[str, Any] | None:
    both = [one for one in media if _has(first[one], name) and _has(other[one], name)]
    if not both:
        return None
    one, two = (_measure(name, lines, both) for lines in (first, other))
    of = [media[one] for one in both]
    over_samples = paired_interval(one, two) if count_media(of) < len(of) else None
    return {
        "measure": name,
        "samples": len(both),
        "scored": len(both),
        "expected": counts["expected"],
        "of": counts.get("of", counts["expected"]),
        "first": one.value,
        "other": two.value,
        "difference": two.value - one.value,
        **interval_figures(paired_interval(one, two, of), over_samples, count_media(of)),
        "p": p_value(one, two, of),
    }


def _media(first: _Lines, other: _Lines, ids: Sequence[str]) -> dict[str, str]:
    """Id → what the sample is about: the digest of its medium where either scoring knew it, else its name."""
    either = [line for lines in (other, first) for line in lines.values()]
    digests = {line["media"]: str(line["digest"]) for line in either if "digest" in line}
    media = {one: str(first[one]["media"]) for one in ids}
    return {one: digests.get(name, name) for one, name in media.items()}


def _has(line: Mapping[str, Any], name: str) -> bool:
    return COUNTS.get(name, name) in line["scores"]


def _measure(name: str, lines: _Lines, ids: Sequence[str]) -> Measure:
    values = np.array([lines[one]["scores"][COUNTS.get(name, name)] for one in ids], dtype=np.float64)
    columns, make = values.reshape(len(ids), -1), of_sums(name)
    return Measure(float(make(columns.sum(axis=0)[None], len(ids))[0]), columns, make, "")


def _changed(first: _Lines, other: _Lines, ids: Sequence[str], examples: int) -> dict[str, Any]:
    """How many samples say something else, which of them score better or worse, and those that changed most."""
    name = next((n for n in PER_SAMPLE if all(_has(lines[ids[0]], n) for lines in (first, other))), None)
    texts = sum(first[one]["text"] != other[one]["text"] for one in ids)
    if name is None:
        return {"texts": texts}
    moved = [one for one in ids if _has(first[one], name) and _has(other[one], name)]
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
