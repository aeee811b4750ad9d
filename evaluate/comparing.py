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


def together(
    files: Sequence[ScoreFile], task: str
) -> tuple[list[pd.DataFrame], dict[str, tuple[list[Measured], list[str]]]]:
    """Samples of a task that are scored in all files: each file's rows of them, and what each metric can compare.

    By its name: the statistics of each file, and the medium of each of their samples. Media are one where their bytes
    are: by the digest, where any scoring knew it, else by the name. Raises UsageError: a file is damaged.
    """
    named = pd.concat([one.frame for one in files]).dropna(subset="digest").drop_duplicates("medium")
    digests, first = named.set_index("medium")["digest"], files[0].frame
    ids = first.index[first["task"] == task]
    for other in files[1:]:
        ids = ids.intersection(other.frame.index, sort=False)
    rows, measured = [one.frame.loc[ids] for one in files], {}
    media = rows[0]["medium"].map(digests).fillna(rows[0]["medium"])
    for name, metric in metrics().items():
        key = metric.counts or metric.name
        if all(key in one for one in rows) and (every := np.all([one[key].notna() for one in rows], axis=0)).any():
            values = [np.array(one.loc[every, key].tolist(), dtype=np.float64) for one in rows]
            each = [Measured(part.reshape(len(part), -1), metric.aggregate) for part in values]
            measured[name] = each, media[every].tolist()
    return rows, measured


def _tasks(first: ScoreFile, other: ScoreFile, examples: int) -> dict[str, Any]:
    tasks = {}
    for task, scored in first.figures["tasks"].items():
        (one, two), measured = together([first, other], task)
        if one.empty:
            continue
        measures = {}
        for name, ((before, after), media) in measured.items():
            counts = scored.get("figures", {}).get(name, scored)
            measures[name] = {
                "measure": name,
                "samples": len(media),
                "scored": len(media),
                "expected": counts["expected"],
                "of": counts.get("of", counts["expected"]),
                **difference(before, after, media),
            }
        either = {name for file in (first, other) for name in file.figures["tasks"].get(task, {}).get("metrics", ())}
        tasks[task] = {
            "samples": len(one),
            "left_out": scored["expected"] - len(one),  # not scored in both
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
