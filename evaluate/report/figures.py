"""The figures of a report: those of each task by metric, and the differences between runs, with their scales."""

from collections.abc import Mapping, Sequence
from typing import Any

from epalm.evaluate.metrics.registry import metrics
from epalm.evaluate.score_files import ScoreFile
from epalm.figures import samples_in_words
from epalm.samples import HEADLINE, Task

TASKS = {Task.QA.value: "Questions", Task.CAPTION.value: "Captions"}


def task_figures(runs: Sequence[ScoreFile]) -> list[dict[str, Any]]:
    """For each task its "headline" metric, "measures", "notes", and those that were "skipped", with the reason."""
    found = []
    for task, title in TASKS.items():
        parts = [run.figures["tasks"].get(task) or {} for run in runs]
        if not parts[0]:
            continue
        measures = [_measure(name, parts) for name in _once(name for part in parts for name in part.get("figures", ()))]
        headline = next(
            (one for one in measures if one["name"] == HEADLINE[Task(task)]), measures[0] if measures else None
        )
        skipped: dict[tuple[str, str], dict[str, None]] = {}  # once for all metrics of the same reason
        for one in (one for part in parts for one in part.get("skipped", ())):
            skipped.setdefault((one["reason"], one["hint"] or ""), {})[one["metric"]] = None
        notes = _once(note for part in parts for note in part.get("notes", ()))
        found.append(
            {"title": title, "headline": headline, "measures": measures, "skipped": skipped, "notes": notes},
        )
    return found


def differences(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `compare` found, each task with its "title", each metric with its "side" and the "reach" of its scale."""
    found = []
    for one in compared["comparisons"]:
        tasks = []
        for task, part in one["tasks"].items():
            measures = [measure | _side(measure) for measure in part["measures"].values()]
            tasks.append(part | {"title": TASKS[task], "measures": measures})
        found.append({"other": one["other"], "tasks": tasks})
    return found


def _measure(name: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = [part.get("figures", {}).get(name) for part in parts]
    chance = next((part["chance"][name] for part in parts if name in part.get("chance", ())), None)
    highest = max([figure["high"] or figure["value"] for figure in figures if figure] + [chance or 0.0])
    known = metrics().get(name)
    return {
        "name": name,
        "figures": figures,
        "chance": chance,
        "top": 1.0 if known and known.highest <= 1 else max(highest * 1.08, 1e-9),  # of the scale
        "counts": _once(samples_in_words(figure) for figure in figures if figure),
        "backends": sorted({figure["backend"] for figure in figures if figure}),
    }


def _side(measure: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the other run is better, and the largest number on the scale of the difference."""
    low, high = measure["low"], measure["high"]
    sure = low is not None and (low > 0 or high < 0)
    up = (measure["difference"] > 0) == metrics()[measure["measure"]].higher_is_better
    reach = max(abs(measure["difference"]), abs(low or 0.0), abs(high or 0.0), 1e-9) * 1.1
    return {"side": "open" if not sure else "better" if up else "worse", "reach": reach}


def _once(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
