"""Which run folder a training goes to: the one that it has begun or ended in before, or a new one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.differences import differing_leaves
from epalm.errors import EpalmError, UsageError
from epalm.train.runs.run_folder import RunFolder
from epalm.train.runs.run_key import part_differences


@dataclass(frozen=True)
class Choice:
    """The run folder; what came of it where it is done. `nearest` is another run, `changes` what differs from it."""

    folder: RunFolder
    summary: dict[str, Any] | None = None
    nearest: RunFolder | None = None
    changes: tuple[str, ...] = ()


def choose_run(
    runs: Path, label: str, inputs: Mapping[str, Any], *, name: str | None = None, again: bool = False
) -> Choice:
    """The run below `runs` of the same key, or a new one, named by time and label; its folder is made.

    With `name`, only the folder of that name. `again` passes over runs that are done.

    Raises:
        UsageError: the named folder is another training's, or is done and `again` is wanted.
        EpalmError: the folder cannot be made.
    """
    if name is not None:
        return _named(runs, name, inputs, again=again)
    others = _runs_with_parts(runs)
    same = [run for run, told in others if told["key"] == inputs["key"]]
    stopped = [run for run in same if run.summary is None]
    if stopped and (again or len(stopped) == len(same)):
        return Choice(stopped[-1])
    if same and not again:
        run = next(run for run in reversed(same) if run.summary is not None)
        return Choice(run, run.summary)
    folder = RunFolder.create(runs, label)
    if same or not others:
        return Choice(folder)
    nearest, parts = min(
        reversed([(run, told["parts"]) for run, told in others]),
        key=lambda pair: len(list(differing_leaves(pair[1], inputs["parts"]))),
    )
    return Choice(folder, None, nearest, tuple(part_differences(parts, inputs["parts"])))


def _named(runs: Path, name: str, inputs: Mapping[str, Any], *, again: bool) -> Choice:
    try:
        name.encode()
    except UnicodeEncodeError:  # no reader of safetensors takes such a path
        raise UsageError(f"--run {name!a} is not UTF-8", hint="choose another name") from None
    run = RunFolder(runs / name)
    if Path(name).name != name or not run.path.is_dir():
        return Choice(RunFolder.create(runs, "", name=name))
    if run.is_untouched:
        return Choice(run)
    told = run.inputs if (run.path / "inputs.json").is_file() else {}
    if "parts" not in told:
        raise UsageError(f"{run.path} is there already", hint="give another --run")
    if told["key"] != inputs["key"]:
        changes = "; ".join(part_differences(told["parts"], inputs["parts"]))
        raise UsageError(f"{run.path} is of another training: {changes}", hint="give another --run, or none")
    summary = run.summary
    if summary is not None and again:
        raise UsageError(f"{run.path} is done", hint="--again takes another --run, or none")
    return Choice(run, summary)


def _runs_with_parts(runs: Path) -> list[tuple[RunFolder, dict[str, Any]]]:
    """The runs that say what decided them, the oldest first."""
    found = []
    for path in runs.glob("*/inputs.json"):
        run = RunFolder(path.parent)
        try:
            told = run.inputs
            _ = run.summary
        except EpalmError:  # `epalm runs` shows the damage
            continue
        if isinstance(told, dict) and isinstance(told.get("parts"), dict) and "key" in told:
            found.append((path.stat().st_mtime, run, told))
    return [(run, told) for _, run, told in sorted(found, key=lambda one: one[0])]
