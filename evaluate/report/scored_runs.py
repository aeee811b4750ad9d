"""A scored run as a report takes it: its scores, its recipe, what it was made of, and its curves. Reads files only."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from epalm.errors import UsageError
from epalm.evaluate.score_files import ScoreFiles, read_scores
from epalm.train.runs.curves import Curve, curve, read_metrics
from epalm.train.runs.run_folder import RunFolder

# What is drawn of metrics.jsonl: its name there, the plot it belongs to, and whether it is of validation.
_CURVES = (("loss", "loss", False), ("val_loss", "loss", True), ("val_exact", "exact", True))
_POINTS = 300  # of one curve


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
        lines = read_metrics(run.metrics)
        curves = {key: curve(lines, key, _POINTS) for key, _, _ in _CURVES}
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{run.path} cannot be read: {error}", hint="train again, or take another run") from error
    return ScoredRun(files, files.per_sample(), run.path, recipe, run.inputs, curves)


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
