"""The figures of a report as its page shows them: values × 100 in words, and where their marks stand on a scale."""

from collections.abc import Mapping, Sequence
from typing import Any

from epalm.evaluate.metrics.registry import metrics
from epalm.evaluate.report.scored_runs import ScoredRun
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.samples import HEADLINE, Task

TASKS = {Task.QA.value: "Questions", Task.CAPTION.value: "Captions"}
_ONE_DIGIT, _SIGNED = ".1f", "+.1f"


def task_figures(runs: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    """For each task its "headline" measure, "measures", "notes", and those that were "skipped", with the reason."""
    found = []
    for task, title in TASKS.items():
        told = [run.told["tasks"].get(task) for run in runs]
        if told[0] is None:
            continue
        names = list(dict.fromkeys(name for one in told if one for name in one["figures"]))
        measures = [_measure(name, told) for name in names]
        headline = next((m for m in measures if m["name"] == HEADLINE[Task(task)]), measures[0] if measures else None)
        notes = list(dict.fromkeys(note for one in told if one for note in one.get("notes", ())))
        parts = {"headline": headline, "measures": measures, "skipped": _skipped(told), "notes": notes}
        found.append({"title": title, **parts})
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
    highest = max([figure["high"] or figure["value"] for figure in figures if figure] + [chance or 0.0])
    top = max(highest * 1.08, 1e-9) if name not in metrics() or metrics()[name].highest > 1 else 1.0
    return {
        "name": name,
        "figures": [figure and _mark(figure, top) for figure in figures],
        "chance": None if chance is None else {"value": hundred(chance, _ONE_DIGIT), "at": _share(chance, top)},
        "top": hundred(top, _ONE_DIGIT),
        "counts": list(dict.fromkeys(samples_in_words(figure) for figure in figures if figure)),
        "backends": sorted({figure["backend"] for figure in figures if figure}),
    }


def _skipped(told: Sequence[Mapping[str, Any] | None]) -> list[tuple[list[str], str, str]]:
    """Names, reason and hint, once for all that were skipped for the same reason."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for one in (one for part in told if part for one in part["skipped"]):
        names.setdefault((one["reason"], one["hint"] or ""), {})[one["metric"]] = None
    return [(list(of), reason, hint) for (reason, hint), of in names.items()]


def _mark(figure: Mapping[str, Any], top: float) -> dict[str, Any]:
    """Where there is no interval, its ends are the value."""
    ends = {key: figure["value"] if figure[key] is None else figure[key] for key in ("value", "low", "high")}
    return {
        "value": hundred(figure["value"], _ONE_DIGIT),
        "interval": interval_in_words(figure, _ONE_DIGIT),
        "samples": samples_in_words(figure),
        **{f"{key}_at": _share(end, top) for key, end in ends.items()},
    }


def _differences(measures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for one in measures:
        low, high = (one["difference"] if one[key] is None else one[key] for key in ("low", "high"))
        reach = max(abs(low), abs(high), abs(one["difference"]), 1e-9) * 1.1  # each on its own scale
        marks = {"low": low, "high": high, "difference": one["difference"]}
        sure, sign = one["low"] is not None, 1 if metrics()[one["measure"]].higher_is_better else -1
        found.append(
            {
                "name": one["measure"],
                "first": hundred(one["first"], _ONE_DIGIT),
                "other": hundred(one["other"], _ONE_DIGIT),
                "difference": hundred(one["difference"], _SIGNED).replace("-", "−"),
                "interval": interval_in_words(one, _SIGNED).replace("-", "−"),
                "p": f"{one['p']:.4f}",
                "samples": samples_in_words(one),
                "side": "open" if not sure or low <= 0 <= high else "better" if sign * low > 0 else "worse",
                **{f"{key}_at": _share(value + reach, 2 * reach) for key, value in marks.items()},
            }
        )
    return found


def _share(value: float, top: float) -> str:
    """A place between the ends of a scale, in per cent."""
    return f"{100 * min(1.0, max(0.0, value / top)):.2f}%"
