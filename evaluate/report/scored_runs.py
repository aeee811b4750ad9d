"""A scored run as a report takes it: its scores, its recipe, what it was made of, and its curves. Reads files only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from epalm.errors import UsageError
from epalm.evaluate.score_files import ScoreFiles, read_scores
from epalm.train.runs.run_folder import RunFolder

# What is drawn of metrics.jsonl: its name there, the plot it belongs to, and whether it is of validation.
_CURVES = (("loss", "loss", False), ("val_loss", "loss", True), ("val_exact", "exact", True))
_POINTS = 300  # of one curve; more are averaged

Curve = tuple[list[float], list[float]]  # steps, values


@dataclass(frozen=True)
class ScoredRun:
    """`folder` is None for scores of predictions that came from elsewhere: there is no recipe then and no curve."""

    files: ScoreFiles
    rows: Mapping[str, Mapping[str, Any]]  # each sample's line by its id
    folder: Path | None
    recipe: str  # config.toml
    inputs: Mapping[str, Any]
    curves: Mapping[str, Curve]

    @property
    def name(self) -> str:
        """The run's, or the file's."""
        return self.files.name

    @property
    def told(self) -> Mapping[str, Any]:
        """What the scores file has."""
        return self.files.told


def read_run(name: str | None, runs: Path, split: str | None = None) -> ScoredRun:
    """The run of that name or folder, without one the latest; or a file that `epalm score --predictions` wrote.

    Raises:
        UsageError: there is none, it is not scored, or a file of it cannot be read.
    """
    if name is not None and name.endswith(".json"):
        files = read_scores(name, runs, split)
        return ScoredRun(files, files.per_sample(), None, "", {}, {})
    run = RunFolder.find(runs, name)
    files = read_scores(str(run.path) if name is None else name, runs, split)
    try:
        recipe = (run.path / "config.toml").read_text(encoding="utf-8")
        lines = run.read_metrics()
        curves = {key: curve(lines, key) for key, _, _ in _CURVES}
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{run.path} cannot be read: {error}", hint="train again, or take another run") from error
    return ScoredRun(files, files.per_sample(), run.path, recipe, run.inputs, curves)


def curve(lines: Sequence[Mapping[str, Any]], key: str, points: int = _POINTS) -> Curve:
    """Steps and values of one metric, as means of neighbours where there are more than `points`."""
    pairs = [(float(line["step"]), float(line[key])) for line in lines if line.get(key) is not None]
    size = -(-len(pairs) // points) or 1
    groups = [pairs[first : first + size] for first in range(0, len(pairs), size)]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [step for step, _ in means], [value for _, value in means]


def curves_of(run: ScoredRun) -> list[dict[str, Any]]:
    """The curves that there are, each with the "plot" it belongs to, as JSON values."""
    found = []
    for key, plot, validation in _CURVES:
        pairs = zip(*run.curves.get(key, ([], [])), strict=True)
        # A training that went astray has losses that are no numbers.
        points = [[round(step, 1), round(value, 5)] for step, value in pairs if isfinite(value)]
        if points:
            found.append({"plot": plot, "validation": validation, "points": points})
    return found
