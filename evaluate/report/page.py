"""The page of a report: one HTML file that opens from disk and asks nothing of a network.

Texts of runs, data and models get into it in two ways only: through a template that escapes all it is given, and as
JSON in which nothing can end the element it lies in. A policy in the page forbids scripts, styles and addresses other
than its own.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined

from epalm import __version__
from epalm.datasets import short_name
from epalm.errors import UsageError
from epalm.evaluate.comparing import compare
from epalm.evaluate.metrics.registry import metrics
from epalm.evaluate.report.samples import Samples, count_with_media, histogram, mistakes, type_tables
from epalm.evaluate.score_files import ScoreFile
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.samples import HEADLINE, Task

_TASKS = {Task.QA.value: "Questions", Task.CAPTION.value: "Captions"}
_SCRIPTS = ("elements.js", "plots.js", "cards.js", "gallery.js", "page.js")
_SHOWN_PARTS = ("training", "validation", "versions", "device")  # of what a run was made of: others repeat
# The curves, by their names in metrics.jsonl: the plot that each belongs to, and whether it is of validation.
_CURVES = {"loss": ("loss", False), "val_loss": ("loss", True), "val_exact": ("exact", True)}
_POINTS = 300  # of one curve


def render_page(runs: Sequence[ScoreFile], samples: Samples, media: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The report of these runs, the first of them in front; `media` is what is shown of each medium, by its name.

    The same runs and media give the same bytes. Raises UsageError: the runs were scored on different samples, or a file
    of a run cannot be read.
    """
    compared = compare(runs[0], runs[1:], examples=0)
    tasks = list(runs[0].figures["tasks"].values())
    described = [_described(run) for run in runs]
    data = {
        "runs": [run.name for run in runs],
        "judged": samples.judged,
        "rows": samples.rows,
        "media": media,
        "curves": [one["curves"] for one in described],
        "histogram": histogram(samples),
    }
    values = {
        "title": " and ".join(run.name for run in runs),
        "data": data,
        "runs": described,
        "about": runs[0].figures,
        "data_name": short_name(str(runs[0].figures["data"])),
        "tasks": _task_figures(runs),
        "differences": compared["comparisons"],
        "titles": _TASKS,
        "interval": compared["interval"],
        "test": compared["test"],
        "types": type_tables(runs, samples),
        "mistakes": mistakes(samples),
        "curves": any(one["curves"] for one in described),
        "rows": samples.rows,
        "scored": len(samples.frames[0]),
        "there": sum(one.get("of", one["expected"]) for one in tasks),
        "limited": any(one["expected"] < one.get("of", 0) for one in tasks),
        "resampled": "; ".join(dict.fromkeys(one["interval"] for one in tasks)),
        "media_shown": count_with_media(samples, media),
    }
    return render("page.html", values, _SCRIPTS)


def render(template: str, values: Mapping[str, Any], scripts: Sequence[str] = ()) -> bytes:
    """A page of a template here, with our style, these scripts, and the policy that forbids all others."""
    style, script = _read("page.css"), "\n".join(map(_read, scripts))
    own = {kind: b64encode(sha256(text.encode()).digest()).decode() for kind, text in (("s", style), ("j", script))}
    policy = (
        f"default-src 'none'; style-src 'sha256-{own['s']}'; script-src 'sha256-{own['j']}'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    about = {"policy": policy, "style": style, "script": script, "maker": f"epalm {__version__}"}
    page = PAGES.get_template(template).render({**values, **about})
    return page.encode("utf-8", "replace")


def top_of_scale(name: str, highest: float) -> float:
    """Where a measure's scale ends, of which this is the highest value."""
    return 1.0 if name in metrics() and metrics()[name].highest <= 1 else max(highest * 1.08, 1e-9)


def _task_figures(runs: Sequence[ScoreFile]) -> list[dict[str, Any]]:
    """For each task its "headline" metric, "measures", "notes", and those that were "skipped", with the reason."""
    tasks = []
    for task, title in _TASKS.items():
        parts = [run.figures["tasks"].get(task) or {} for run in runs]
        if not parts[0]:
            continue
        measures = []
        for name in dict.fromkeys(name for part in parts for name in part.get("figures", ())):
            figures = [part.get("figures", {}).get(name) for part in parts]
            chance = next((part["chance"][name] for part in parts if name in part.get("chance", ())), None)
            highest = max([figure["high"] or figure["value"] for figure in figures if figure] + [chance or 0.0])
            top = top_of_scale(name, highest)
            measures.append({"name": name, "figures": figures, "chance": chance, "top": top})
        headline = next(iter([one for one in measures if one["name"] == HEADLINE[Task(task)]] or measures), None)
        skipped: dict[tuple[str, str], dict[str, None]] = {}  # once for all metrics of the same reason
        for one in (one for part in parts for one in part.get("skipped", ())):
            skipped.setdefault((one["reason"], one["hint"] or ""), {})[one["metric"]] = None
        notes = dict.fromkeys(note for part in parts for note in part.get("notes", ()))
        tasks.append({"title": title, "headline": headline, "measures": measures, "skipped": skipped, "notes": notes})
    return tasks


def _side(measure: Mapping[str, Any]) -> str:
    """Whether the other run is better or worse, or the difference "open"."""
    if measure["low"] is None or measure["low"] <= 0 <= measure["high"]:
        return "open"
    up = measure["difference"] > 0
    return "better" if up == metrics()[measure["measure"]].higher_is_better else "worse"


def _described(run: ScoreFile) -> dict[str, Any]:
    """What the page has of a run beside its scores: its recipe, what it was made of, and its curves."""
    described: dict[str, Any] = {"name": run.name, "figures": run.figures, "recipe": "", "inputs": {}, "curves": []}
    if run.run is None:
        return described
    try:
        recipe = (run.run.path / "config.toml").read_text(encoding="utf-8")
        drawn = list(curves(run.run.read_metrics()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{run.run.path} cannot be read: {error}", hint="train again, or take another run") from error
    inputs = run.run.inputs
    parts = {key: value for key, value in inputs.get("parts", {}).items() if key in _SHOWN_PARTS}
    # Where the data lay is private.
    made_of = {key: value for key, value in inputs.items() if key not in ("parts", "data", "data_root")} | parts
    return described | {"recipe": recipe, "inputs": inputs, "made_of": made_of, "curves": drawn}


def curves(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The curves that there are, as means of neighbours where they have more than 300 points."""
    frame = pd.DataFrame(lines).replace([np.inf, -np.inf], np.nan)  # as of a training that diverged
    for key, (plot, validation) in _CURVES.items():
        if key in frame and not (curve := frame[["step", key]].dropna().astype(float)).empty:
            size = -(-len(curve) // _POINTS)
            means = curve.groupby(np.arange(len(curve)) // size).mean().round({"step": 1, key: 5})
            yield {"plot": plot, "validation": validation, "points": means.to_numpy().tolist()}


def _read(name: str) -> str:
    return (files("epalm.evaluate.report") / "page" / name).read_text(encoding="utf-8")


PAGES = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_read)
)
PAGES.filters |= {
    "hundred": lambda value, form=".1f": hundred(value, form).replace("-", "−"),
    "interval": lambda figure, form=".1f": interval_in_words(figure, form).replace("-", "−"),
    "samples": samples_in_words,
    "side": _side,
    # The largest number on the scale of a difference.
    "reach": lambda one: 1.1 * max(abs(one[key] or 0.0) for key in ("difference", "low", "high")) or 1e-9,
    "place": lambda value, low, high: f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%",
}
PAGES.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}  # keys in their order
