"""Loss and score curves of a run as a picture, from its metrics. Knows lines of metrics and one file to write."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.objects.durable import draft_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 500  # of one curve; more are averaged
_GREY = "#808080"  # of text and axes: readable on white and on black
_TRAIN, _VALIDATION = "#7a9fd4", "#d9752b"

Curve = tuple[list[float], list[float]]  # steps, values


def draw_curves(metrics: Path, target: Path, title: str) -> None:
    """Draw the curves of a metrics.jsonl as SVG; nothing is written where there is none yet.

    The background is transparent, so that the picture suits a light page and a dark one.

    Raises:
        OSError: a file cannot be read or written.
        ImportError: matplotlib cannot be loaded.
    """
    lines = read_metrics(metrics)
    losses = {"training": curve(lines, "loss"), "validation": curve(lines, "val_loss")}
    exact = {"validation": curve(lines, "val_exact")}
    if any(steps for steps, _ in losses.values()):
        picture = _svg(title, losses, exact)
        with draft_of(target) as draft:
            draft.write_bytes(picture)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; torn ones are passed over."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            found.append(value)
    return found


def curve(lines: Sequence[Mapping[str, Any]], key: str, points: int = _POINTS) -> Curve:
    """Steps and values of one metric, as means of neighbours where there are more than `points`."""
    pairs = [(float(line["step"]), float(line[key])) for line in lines if line.get(key) is not None]
    size = -(-len(pairs) // points) or 1
    groups = [pairs[first : first + size] for first in range(0, len(pairs), size)]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [step for step, _ in means], [value for _, value in means]


def _svg(title: str, losses: Mapping[str, Curve], exact: Mapping[str, Curve]) -> bytes:
    from io import BytesIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))  # inches
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    _plot(left, losses, "loss, nats per sample")
    _plot(right, exact, "validation samples right to the token, %", factor=100)
    figure.suptitle(title, color=_GREY, fontsize=9)
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.15, top=0.84, wspace=0.16)
    file = BytesIO()
    # Text stays text, and the same curves give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "epalm"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _plot(axis: "Axes", curves: Mapping[str, Curve], title: str, factor: float = 1) -> None:
    for (name, (steps, values)), colour in zip(curves.items(), (_TRAIN, _VALIDATION)[-len(curves) :], strict=True):
        marker = "o" if len(steps) < 50 and name == "validation" else None
        axis.plot(steps, [factor * value for value in values], label=name, color=colour, marker=marker, markersize=3)
    axis.set_title(title, color=_GREY, fontsize=8)
    axis.set_xlabel("step", color=_GREY, fontsize=8)
    axis.tick_params(colors=_GREY, labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_GREY)
    axis.grid(color=_GREY, alpha=0.25, linewidth=0.5)
    if len(curves) > 1:
        axis.legend(frameon=False, labelcolor=_GREY, fontsize=7)
