"""What there is to say about the runs in a folder, damaged ones included. Knows run folders; loads no model."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.errors import EpalmError, UsageError
from epalm.samples import HEADLINE
from epalm.train.runs.curves import read_metrics
from epalm.train.runs.run_differences import part_differences, version_changes
from epalm.train.runs.run_folder import RunFolder
from epalm.train.runs.run_lock import is_locked

if TYPE_CHECKING:
    import pandas as pd

_SIGNS = ("config.toml", "inputs.json", "checkpoints")  # each says that a folder holds a run, whole or not


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run. `state`: done, running, stopped, imported, or damaged, with the `fault`.

    `step` of `steps` are what is saved; None where it is not known. `val_loss` (nats) and `val_exact` are of the best
    validation, which took `val_samples` of the `val_of` that there are; `scores`: see `headlines`.
    """

    name: str
    path: str
    state: str
    fault: str | None = None
    modality: str | None = None
    recipe: str | None = None
    variant: str | None = None
    step: int | None = None
    steps: int | None = None
    val_loss: float | None = None
    val_exact: float | None = None
    scores: dict[str, dict[str, Any]] | None = None
    val_samples: int | None = None
    val_of: int | None = None


def list_runs(runs: Path) -> list[RunStatus]:
    """The runs in a folder and one level deeper, as the demo puts them; the oldest first."""
    folders = {path.parent for depth in ("*", "*/*") for name in _SIGNS for path in runs.glob(f"{depth}/{name}")}
    return [run_status(RunFolder(path), runs) for path in sorted(folders, key=lambda path: (_begun(path), path.name))]


def runs_frame(runs: Path) -> "pd.DataFrame":
    """The runs of `list_runs`, one a row, with the fields of `RunStatus` as columns."""
    import pandas as pd

    rows = [asdict(one) for one in list_runs(runs)]
    frame = pd.DataFrame(rows, columns=[field.name for field in fields(RunStatus)])
    counts = ("step", "steps", "val_samples", "val_of")
    return frame.astype({**dict.fromkeys(counts, "Int64"), **dict.fromkeys(("val_loss", "val_exact"), "float64")})


def run_status(run: RunFolder, runs: Path) -> RunStatus:
    """What there is to say about one run."""
    name = run.path.relative_to(runs).as_posix() if run.path.is_relative_to(runs) else str(run.path)
    try:
        return _status(run, name)
    except EpalmError as error:
        return RunStatus(name, str(run.path), "damaged", error.message)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return RunStatus(name, str(run.path), "damaged", f"{type(error).__name__}: {error}")


def headlines(run: RunFolder) -> dict[str, dict[str, Any]]:
    """The measure that stands for each task, as "qa exact match"; none where the run was not scored.

    Each is a figure (see `epalm.figures`) with the "split" and "data" that it is of.
    """
    try:
        scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
        where = {"split": str(scores["split"]), "data": str(scores["data"])}
        of = {task: told["figures"] for task, told in scores["tasks"].items()}
        return {
            f"{task} {name}": {**of[task][name], **where}
            for task, name in HEADLINE.items()
            if isinstance(of.get(task, {}).get(name, {}).get("value"), int | float)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def details(run: RunFolder) -> dict[str, Any]:
    """More about one run: data, language model, key, checkpoints. What is not known is left out."""
    try:
        inputs, config = run.inputs, run.config
    except EpalmError:
        return {}
    told = {name: inputs.get(name) for name in ("data", "key", "epalm")}
    told |= {"language_model": config.lm.name, "feature_set": inputs.get("features", {}).get("set")}
    return {key: value for key, value in told.items() if value} | {"checkpoints": run.checkpoints.listed()}


def run_differences(one: RunFolder, other: RunFolder) -> list[str]:
    """What decides two trainings and differs between them. Raises UsageError where a run does not say."""
    inputs = [run.inputs for run in (one, other)]
    for run, told in zip((one, other), inputs, strict=True):
        if not isinstance(told.get("parts"), dict):
            raise UsageError(f"{run.path} does not say what decided it", hint="compare runs that were trained here")
    versions = version_changes(*inputs)
    return [*part_differences(*(told["parts"] for told in inputs)), *([f"versions: {versions}"] if versions else [])]


def _status(run: RunFolder, name: str) -> RunStatus:
    inputs, config, summary = run.inputs, run.config, run.summary
    lines = read_metrics(run.metrics)
    best = min((line for line in lines if "val_loss" in line), key=lambda line: line["val_loss"], default={})
    step, steps = _saved(run)
    if is_locked(run):
        state, step = "running", max((line["step"] for line in lines), default=0)
    elif "imported" in inputs:
        state = "imported"
    elif summary is not None or "key" not in inputs:
        state = "done"  # before runs had keys, none was listed as begun
    else:
        state = "stopped"
    return RunStatus(
        name,
        str(run.path),
        state,
        modality=inputs["modality"],
        recipe=inputs.get("recipe"),
        variant=config.model.variant,
        step=step,
        steps=steps,
        val_loss=best.get("val_loss"),
        val_exact=best.get("val_exact"),
        val_samples=best.get("n"),
        val_of=(summary or {}).get("val_of"),
        scores=headlines(run),
    )


def _saved(run: RunFolder) -> tuple[int | None, int | None]:
    """The step of the latest checkpoint, and how many there are to be."""
    state = run.checkpoints.latest_state()
    return (None, None) if state is None else (int(state["step"]), int(state["steps"]))


def _begun(path: Path) -> float:
    try:
        return (path / "inputs.json").stat().st_mtime
    except OSError:
        return 0.0
