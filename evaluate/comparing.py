"""Two or more scorings of the same samples: differences with their intervals and p-values, and what changed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from epalm.errors import UsageError
from epalm.evaluate.metrics.bootstrap import TEST, difference, resampling
from epalm.evaluate.metrics.metric import Measured
from epalm.evaluate.metrics.registry import judge, metrics
from epalm.evaluate.score_files import ScoreFile


def compare(first: ScoreFile, others: Sequence[ScoreFile], *, examples: int) -> dict[str, Any]:
    """Each of `others` against `first`, as JSON values; differences are `other - first`.

    Raises UsageError: they were scored on different samples, or a file is damaged.
    """
    for other in others:
        if first.figures["samples"] != other.figures["samples"]:
            one, two = (
                f"{file.name}: {file.figures['data']}, split {file.figures['split']}, "
                f"{sum(task['expected'] for task in file.figures['tasks'].values())} samples"
                for file in (first, other)
            )
            fault = f"these were scored on different samples ({one}; {two})"
            raise UsageError(fault, hint="score both with the same --data and --split")
    return {
        "first": first.name,
        "data": first.figures["data"],
        "split": first.figures["split"],
        "interval": f"paired {resampling()}",
        "test": TEST,
        "comparisons": [{"other": other.name, "tasks": _tasks(first, other, examples)} for other in others],
    }


def _tasks(first: ScoreFile, other: ScoreFile, examples: int) -> dict[str, Any]:
    # Media are one where their bytes are: by the digest, where either scoring knew it, else by the name.
    named = pd.concat([first.frame, other.frame]).dropna(subset="digest").drop_duplicates("medium")
    digests = named.set_index("medium")["digest"]
    tasks = {}
    for task, scored in first.figures["tasks"].items():
        ids = first.frame.index[first.frame["task"] == task].intersection(other.frame.index, sort=False)
        if ids.empty:
            continue
        one, two = first.frame.loc[ids], other.frame.loc[ids]
        media = one["medium"].map(digests).fillna(one["medium"])
        measures = {}
        for name, metric in metrics().items():
            key = metric.counts or metric.name
            if key in one and key in two and (both := one[key].notna() & two[key].notna()).any():
                counts = scored.get("figures", {}).get(name, scored)
                values = [np.array(frame.loc[both, key].tolist(), dtype=np.float64) for frame in (one, two)]
                before, after = (Measured(part.reshape(len(part), -1), metric.aggregate) for part in values)
                measures[name] = {
                    "measure": name,
                    "samples": int(both.sum()),
                    "scored": int(both.sum()),
                    "expected": counts["expected"],
                    "of": counts.get("of", counts["expected"]),
                    **difference(before, after, media[both].tolist()),
                }
        either = {name for file in (first, other) for name in file.figures["tasks"].get(task, {}).get("metrics", ())}
        tasks[task] = {
            "samples": len(ids),
            "left_out": scored["expected"] - len(ids),  # not scored in both
            "measures": measures,
            "one_sided": sorted(either - measures.keys()),
            "changed": _changed(one, two, examples),
        }
    return tasks


def _changed(one: pd.DataFrame, two: pd.DataFrame, examples: int) -> dict[str, Any]:
    """How many samples have another prediction, which of them score better or worse, and those that changed most."""
    name = judge([str(key) for key in one.columns[one.notna().any()].intersection(two.columns[two.notna().any()])])
    changed = {"texts": int((one["prediction"] != two["prediction"]).sum()), "by": name}
    if name is None:
        return changed | {"better": 0, "worse": 0, "examples": []}
    both = one.assign(first=one["prediction"], first_score=one[name], other=two["prediction"], other_score=two[name])
    change = two[name] - one[name]
    order = change[change.notna() & (change != 0)].sort_index().abs().sort_values(ascending=False, kind="stable").index
    keys = {"id": "id", "medium": "media", "question": "prompt"}
    shown = both.loc[order[:examples], [*keys, "first", "other", "first_score", "other_score"]].rename(columns=keys)
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    return changed | {"better": better, "worse": worse, "examples": shown.to_dict("records")}
