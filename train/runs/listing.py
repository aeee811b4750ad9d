"""What there is to say about the runs in a folder, damaged ones included. Knows run folders; loads no model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.errors import EpalmError, UsageError
from epalm.samples import HEADLINE
from epalm.train.runs.run_folder import RunFolder
from epalm.train.runs.run_key import part_differences, version_changes
from epalm.train.runs.run_lock import is_locked

if TYPE_CHECKING:
    import pandas as pd

# Columns of a listing, with their types. `state`: done, running, stopped, imported, or damaged, with the `fault`.
# `step` of `steps` are saved. `val_loss` (nats) and `val_exact` are of the best validation, which took `val_samples` of
# the `val_of` that there are. What is not known is missing. `scores`: see `headlines`.
COLUMNS = {
    "name": "object", "path": "object", "state": "object", "fault": "object",
    "modality": "object", "recipe": "object", "variant": "object", "step": "Int64", "steps": "Int64",
    "val_loss": "float64", "val_exact": "float64", "val_samples": "Int64", "val_of": "Int64", "scores": "object",
}  # fmt: skip
_SIGNS = ("config.toml", "inputs.json", "checkpoints")  # each says that a folder holds a run, whole or not
_FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError)  # of files that say something else than we wrote


def runs_frame(runs: Path) -> "pd.DataFrame":
    """The runs in a folder and one level deeper, as the demo puts them, one a row; the oldest first.

    After `COLUMNS` follow the value of each headline measure, as "qa exact match", and the settings that differ between
    the runs, as "optim.peak_lr".
    """
    import pandas as pd

    folders = {path.parent for depth in ("*", "*/*") for name in _SIGNS for path in runs.glob(f"{depth}/{name}")}
    found = [RunFolder(path) for path in sorted(folders, key=_begun)]
    records = [run_record(run, runs) for run in found]
    frame = pd.DataFrame(records, columns=list(COLUMNS)).astype(COLUMNS)
    scores = [{name: one["value"] for name, one in (record["scores"] or {}).items()} for record in records]
    whole = [record["state"] != "damaged" for record in records]
    settings = pd.json_normalize(
        [run.config.model_dump(mode="json") if is_whole else {} for run, is_whole in zip(found, whole, strict=True)]
    )
    differ = [name for name in settings.columns if settings[whole][name].astype(str).nunique() > 1]
    return pd.concat([frame, pd.DataFrame(scores, index=frame.index), settings[differ]], axis="columns")


def run_record(run: RunFolder, runs: Path) -> dict[str, Any]:
    """What there is to say about one run, by `COLUMNS`."""
    record: dict[str, Any] = dict.fromkeys(COLUMNS)
    record["name"] = run.path.relative_to(runs).as_posix() if run.path.is_relative_to(runs) else str(run.path)
    record["path"] = str(run.path)
    try:
        return record | _status(run)
    except EpalmError as error:
        return record | {"state": "damaged", "fault": error.message}
    except _FAULTS as error:
        return record | {"state": "damaged", "fault": f"{type(error).__name__}: {error}"}


def headlines(run: RunFolder) -> dict[str, dict[str, Any]]:
    """The measure that stands for each task, as "qa exact match"; none where the run was not scored.

    Each is a figure (see `epalm.figures`) with the "split" and "data" that it is of.
    """
    try:
        scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
        where = {"split": str(scores["split"]), "data": str(scores["data"])}
        figures = {task: of_task["figures"] for task, of_task in scores["tasks"].items()}
        return {
            f"{task} {name}": {**figures[task][name], **where}
            for task, name in HEADLINE.items()
            if isinstance(figures.get(task, {}).get(name, {}).get("value"), int | float)
        }
    except _FAULTS:
        return {}


def details(run: RunFolder) -> dict[str, Any]:
    """More about one run: data, language model, key, checkpoints. What is not known is left out."""
    try:
        inputs, config = run.inputs, run.config
    except EpalmError:
        return {}
    more = {name: inputs.get(name) for name in ("data", "key", "epalm")}
    more |= {"language_model": config.lm.name, "feature_set": inputs.get("features", {}).get("set")}
    return {key: value for key, value in more.items() if value} | {"checkpoints": run.checkpoints.listed()}


def run_differences(one: RunFolder, other: RunFolder) -> list[str]:
    """What decides two trainings and differs between them. Raises UsageError where a run does not say."""
    inputs = [run.inputs for run in (one, other)]
    for run, its in zip((one, other), inputs, strict=True):
        if not isinstance(its.get("parts"), dict):
            raise UsageError(f"{run.path} does not say what decided it", hint="compare runs that were trained here")
    versions = version_changes(*inputs)
    return [*part_differences(*(its["parts"] for its in inputs)), *([f"versions: {versions}"] if versions else [])]


def runs_of_sets(folders: Iterable[Path], *, strict: bool = False) -> dict[str, list[str]]:
    """Feature set → the runs that use it (absolute), of those in these folders and one level deeper.

    Raises:
        UsageError: with `strict`, a run does not say what it was trained on.
    """
    found: dict[str, list[str]] = {}
    depths = ("*/inputs.json", "*/*/inputs.json")
    for path in sorted(path for folder in folders for depth in depths for path in folder.glob(depth)):
        try:
            name = json.loads(path.read_text(encoding="utf-8"))["features"].get("set")
        except _FAULTS as error:
            if strict:
                raise UsageError(
                    f"{path} cannot be read, so it is not known which feature set the run uses: {error}",
                    hint="mend it, or move the run folder away",
                ) from error
            continue
        if isinstance(name, str):  # none where the encoder was in the loop
            found.setdefault(name, []).append(str(path.parent.resolve()))
    return found


def _begun(path: Path) -> tuple[float, str]:
    inputs = path / "inputs.json"
    return inputs.stat().st_mtime if inputs.is_file() else 0.0, path.name


def _status(run: RunFolder) -> dict[str, Any]:
    inputs, config, summary = run.inputs, run.config, run.summary
    lines = run.read_metrics()
    best = min((line for line in lines if "val_loss" in line), key=lambda line: line["val_loss"], default={})
    saved = run.checkpoints.latest_state() or {"step": None, "steps": None}
    step = saved["step"]
    if is_locked(run):
        state, step = "running", max((line["step"] for line in lines), default=0)
    elif "imported" in inputs:
        state = "imported"
    else:  # an export has no key
        state = "done" if summary is not None or "key" not in inputs else "stopped"
    return {
        "state": state,
        "modality": inputs["modality"],
        "recipe": inputs.get("recipe"),
        "variant": config.model.variant,
        "step": step,
        "steps": saved["steps"],
        "val_loss": best.get("val_loss"),
        "val_exact": best.get("val_exact"),
        "val_samples": best.get("n"),
        "val_of": (summary or {}).get("val_of"),
        "scores": headlines(run),
    }
