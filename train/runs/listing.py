"""What there is to say about the runs in a folder, damaged ones included. Knows run folders; loads no model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.errors import EpalmError, UsageError
from epalm.samples import HEADLINE
from epalm.train.bridge.registry import EPALM
from epalm.train.runs.checkpoints import BEST, LATEST
from epalm.train.runs.run_folder import RunFolder, is_locked
from epalm.train.runs.run_key import part_differences, version_changes

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
    begun = {path: max([file.stat().st_mtime for file in path.glob("inputs.json")], default=0.0) for path in folders}
    each = [RunFolder(path) for path in sorted(folders, key=lambda path: (begun[path], path.name))]
    records = [run_record(run, runs) for run in each]
    frame = pd.DataFrame(records, columns=list(COLUMNS)).astype(COLUMNS)
    scores = [{name: one["value"] for name, one in (record["scores"] or {}).items()} for record in records]
    whole = frame["state"] != "damaged"
    settings = pd.json_normalize(
        [run.config.model_dump(mode="json") if sound else {} for run, sound in zip(each, whole, strict=True)]
    )
    differ = [name for name in settings.columns if settings[whole][name].astype(str).nunique() > 1]
    return pd.concat([frame, pd.DataFrame(scores, index=frame.index), settings[differ]], axis="columns")


def run_record(run: RunFolder, runs: Path) -> dict[str, Any]:
    """What there is to say about one run: `COLUMNS`, then what is known of data, models, key and checkpoints."""
    record: dict[str, Any] = dict.fromkeys(COLUMNS)
    record["name"] = run.path.relative_to(runs).as_posix() if run.path.is_relative_to(runs) else str(run.path)
    record["path"] = str(run.path)
    try:
        inputs, config, summary = run.inputs, run.config, run.summary
        lines, saved = run.read_metrics(), run.checkpoints.named(LATEST)
        if saved:
            record |= {name: saved.state[name] for name in ("step", "steps")}
        if is_locked(run):
            record |= {"state": "running", "step": max((line["step"] for line in lines), default=0)}
        elif "imported" in inputs:
            record["state"] = "imported"
        else:  # an export has no key
            record["state"] = "done" if summary is not None or "key" not in inputs else "stopped"
        validated = [line for line in lines if "val_loss" in line]
        if validated:
            best = min(validated, key=lambda line: line["val_loss"])
            record |= {"val_loss": best["val_loss"], "val_exact": best["val_exact"], "val_samples": best["n"]}
        form = config.model.variant if config.model.bridge == EPALM else config.model.bridge
        record |= {"modality": inputs["modality"], "recipe": inputs.get("recipe"), "variant": form}
        record |= {"val_of": (summary or {}).get("val_of"), "scores": headlines(run)}
        more = {name: inputs.get(name) for name in ("data", "key", "epalm")}
        more |= {"language_model": config.lm.name, "feature_set": inputs.get("features", {}).get("set")}
        checkpoints = {kind: name for kind in (BEST, LATEST) if (name := run.checkpoints.name_of(kind))}
        return record | {key: value for key, value in more.items() if value} | {"checkpoints": checkpoints}
    except (EpalmError, *_FAULTS) as error:
        names = {name: record[name] for name in ("name", "path")}
        return dict.fromkeys(COLUMNS) | names | {"state": "damaged", "fault": str(error)}


def headlines(run: RunFolder) -> dict[str, dict[str, Any]]:
    """The measure that stands for each task, as "qa exact match"; none where its checkpoints were not scored.

    Each is a figure (see `epalm.figures`) with the "split" and "data" that it is of.
    """
    try:
        scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
        there = {name for kind in (BEST, LATEST) if (name := run.checkpoints.name_of(kind))}  # an export has none
        if there and f"step-{scores['checkpoint_step']}" not in there:
            return {}  # of one that the training has left behind
        where = {name: str(scores[name]) for name in ("split", "data")}
        figures = {task: scores["tasks"].get(task, {}).get("figures", {}).get(name) for task, name in HEADLINE.items()}
        return {f"{task} {HEADLINE[task]}": {**one, **where} for task, one in figures.items() if one and "value" in one}
    except _FAULTS:
        return {}


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

    Raises UsageError: with `strict`, a run does not say what it was trained on.
    """
    users: dict[str, list[str]] = {}
    paths = (path for folder in folders for depth in ("*", "*/*") for path in folder.glob(f"{depth}/inputs.json"))
    for path in sorted(paths):
        try:
            name = RunFolder(path.parent).inputs["features"].get("set")
        except (EpalmError, *_FAULTS) as error:
            if strict:
                fault = f"{path} does not say which feature set the run uses: {error}"
                raise UsageError(fault, hint="mend it, or move the run folder away") from error
            continue
        if isinstance(name, str):  # none where the encoder was in the loop
            users.setdefault(name, []).append(str(path.parent.resolve()))
    return users
