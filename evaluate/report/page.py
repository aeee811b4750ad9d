"""The page of a report: one HTML file that opens from disk and asks nothing of a network.

Whatever runs, data and models say gets into it in two ways only: through a template that escapes all it is given, and
as JSON in which nothing can end the element it lies in. A policy in the page forbids scripts, styles and addresses
other than its own.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from epalm.evaluate.comparing import compare
from epalm.evaluate.report.figures import differences, task_figures, type_figures
from epalm.evaluate.report.rows import Rows
from epalm.evaluate.report.scored_runs import ScoredRun, curves_of
from epalm.evaluate.report.types import histogram, mistakes, type_tables

_SCRIPTS = ("elements.js", "plots.js", "cards.js", "gallery.js", "page.js")
_LEFT_OUT = ("data_root", "parts")  # where the data lay is nobody's business, and parts repeat what is there


def render_page(runs: Sequence[ScoredRun], rows: Rows, media: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The report of these runs, the first of them in front; `media` is what is shown of each medium, by its name.

    The same runs and media give the same bytes.

    Raises:
        UsageError: the runs were scored on different samples.
    """
    style = _read("page.css")
    script = "\n".join(_read(name) for name in _SCRIPTS)
    compared = compare(runs[0].files, [run.files for run in runs[1:]], examples=0)
    first = runs[0]
    told = list(first.told["tasks"].values())
    there = sum(one.get("of", one["expected"]) for one in told)
    values = {
        "title": " and ".join(run.name for run in runs),
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "data": as_data(_for_script(runs, rows, media)),
        "maker": f"epalm {version('epalm')}",
        "runs": [_described(run) for run in runs],
        "told": first.told,
        "tasks": task_figures(runs),
        "differences": differences(compared),
        "interval": compared["interval"],
        "test": compared["test"],
        "types": type_figures(type_tables(runs, rows.judged)),
        "mistakes": mistakes(runs, rows.judged),
        "curves": any(curves_of(run) for run in runs),
        "rows": rows,
        "there": there,
        "limited": any(one["expected"] < one.get("of", 0) for one in told),
        "resampled": "; ".join(dict.fromkeys(one["interval"] for one in told)),
        "media_shown": sum(row["shown"] for row in rows.rows),
    }
    text: str = _template().render(values)
    return text.encode("utf-8", "replace")


def as_data(value: Any) -> str:
    """JSON that may stand in an HTML element: plain ASCII without a character that means something to HTML."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _for_script(runs: Sequence[ScoredRun], rows: Rows, media: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "runs": [run.name for run in runs],
        "judged": rows.judged,
        "rows": rows.rows,
        "media": media,
        "curves": [curves_of(run) for run in runs],
        "histogram": histogram(runs, rows.judged),
    }


def _policy(style: str, script: str) -> str:
    own = {kind: b64encode(sha256(text.encode()).digest()).decode() for kind, text in (("s", style), ("j", script))}
    return (
        f"default-src 'none'; style-src 'sha256-{own['s']}'; script-src 'sha256-{own['j']}'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _described(run: ScoredRun) -> dict[str, Any]:
    told = {key: value for key, value in run.inputs.items() if key not in _LEFT_OUT}
    parts = run.inputs.get("parts", {})
    told |= {key: parts[key] for key in ("training", "validation", "versions", "device") if key in parts}
    leaves = sorted((name, str(value)) for name, value in _leaves(told))
    return {"name": run.name, "told": run.told, "recipe": run.recipe, "inputs": run.inputs, "leaves": leaves}


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of each value in nested mappings."""
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield from _leaves(part, f"{path}{key}.")
        else:
            yield f"{path}{key}", part


def _read(name: str) -> str:
    return (files("epalm.evaluate.report") / "page" / name).read_text(encoding="utf-8")


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read("page.html"))
