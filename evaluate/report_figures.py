"""The figures of a report as its page shows them: values × 100 in words, and where their marks stand on a scale."""

from collections.abc import Mapping, Sequence
from typing import Any

from epalm.evaluate.report_runs import ScoredRun
from epalm.samples import HEADLINE, Task

TASKS = {Task.QA.value: "Questions", Task.CAPTION.value: "Captions"}
_BEYOND_ONE = ("CIDEr", "SPIDEr")  # measures that may be larger than 1


def task_figures(runs: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    """For each task its "headline" measure, its "measures", and those that were "skipped", with the reason."""
    found = []
    for task, title in TASKS.items():
        told = [run.told["tasks"].get(task) for run in runs]
        if told[0] is None:
            continue
        names = list(dict.fromkeys(name for one in told if one for name in one["figures"]))
        measures = [_measure(name, told) for name in names]
        headline = next((m for m in measures if m["name"] == HEADLINE[Task(task)]), measures[0] if measures else None)
        found.append({"title": title, "headline": headline, "measures": measures, "skipped": _skipped(told)})
    return found


def type_figures(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tables of types, their figures with marks from 0 to 100."""
    return [
        {
            **table,
            "rows": [{**row, "figures": [figure and _mark(figure, 1.0) for figure in row["figures"]]} for row in rows],
        }
        for table in tables
        if (rows := table["rows"])
    ]


def differences(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `compare` found, for each comparison: its figures in words, and marks around zero."""
    return [
        {
            "other": one["other"],
            "tasks": [
                {
                    "title": TASKS[task],
                    "samples": part["samples"],
                    "left_out": part["left_out"],
                    "changed": part["changed"],
                    "measures": _differences(list(part["measures"].values())),
                }
                for task, part in one["tasks"].items()
            ],
        }
        for one in told["comparisons"]
    ]


def _measure(name: str, told: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    figures = [one["figures"].get(name) if one else None for one in told]
    chance = next((one["chance"][name] for one in told if one and name in one["chance"]), None)
    highest = max([figure["high"] for figure in figures if figure] + [chance or 0.0])
    top = max(highest * 1.08, 1e-9) if name in _BEYOND_ONE else 1.0
    return {
        "name": name,
        "figures": [figure and _mark(figure, top) for figure in figures],
        "chance": None if chance is None else {"value": _hundred(chance), "at": _share(chance, top)},
        "top": _hundred(top),
        "counts": list(dict.fromkeys(_counts(figure) for figure in figures if figure)),
        "backends": sorted({figure["backend"] for figure in figures if figure}),
    }


def _counts(figure: Mapping[str, Any]) -> str:
    return f"{figure['scored']:,}" + (f" of {figure['expected']:,}" if figure["missing"] else "")


def _skipped(told: Sequence[Mapping[str, Any] | None]) -> list[tuple[list[str], str, str]]:
    """Names, reason and hint, once for all that were skipped for the same reason."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for one in (one for part in told if part for one in part["skipped"]):
        names.setdefault((one["reason"], one["hint"] or ""), {})[one["metric"]] = None
    return [(list(of), reason, hint) for (reason, hint), of in names.items()]


def _mark(figure: Mapping[str, Any], top: float) -> dict[str, Any]:
    told = {key: _hundred(figure[key]) for key in ("value", "low", "high")}
    places = {f"{key}_at": _share(figure[key], top) for key in ("value", "low", "high")}
    return {**told, **places, "scored": f"{figure['scored']:,}"}


def _differences(measures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for one in measures:
        reach = max(abs(one["low"]), abs(one["high"]), abs(one["difference"]), 1e-9) * 1.1  # each on its own scale
        marks = {f"{key}_at": _share(one[key] + reach, 2 * reach) for key in ("low", "high", "difference")}
        found.append(
            {
                "name": one["measure"],
                "first": _hundred(one["first"]),
                "other": _hundred(one["other"]),
                "difference": _signed(one["difference"]),
                "low": _signed(one["low"]),
                "high": _signed(one["high"]),
                "p": f"{one['p']:.4f}",
                "samples": f"{one['samples']:,}",
                "side": "better" if one["low"] > 0 else "worse" if one["high"] < 0 else "open",
                **marks,
            }
        )
    return found


def _hundred(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _share(value: float, top: float) -> str:
    """A place between the ends of a scale, in per cent."""
    return f"{100 * min(1.0, max(0.0, value / top)):.2f}%"
