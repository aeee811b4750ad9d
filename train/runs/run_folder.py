"""A run folder: settings, inputs, metrics and checkpoints of one training; which run ended last; who works in it.

`config.toml` (resolved), `inputs.json`, `metrics.jsonl`, `checkpoints/` and, when it is done, `summary.json`; an export
or import has `trainable.safetensors`. Knows files; does not know how the numbers come about.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.objects import durable
from epalm.cache.objects.durable import free_bytes, fsync, take_lock, write_atomically
from epalm.console import warn
from epalm.errors import EpalmError, UsageError
from epalm.recipes.config import Config, read_config
from epalm.train.runs.checkpoints import BEST, LATEST, TRAINABLE, Checkpoints, read_tensors, write_tensors

if TYPE_CHECKING:
    import torch

_TENSORS, _SUMMARY, _LOCK = f"{TRAINABLE}.safetensors", "summary.json", ".lock"
_DRAFT = re.compile(r"\.[a-z]+\.(toml|jsonl?)\.[0-9a-f]{8}")  # what a kill leaves of a file
_WAITS = (0.0, 0.05, 0.2)  # seconds: whoever only looks whether there is a lock holds it for a moment


class RunFolder:
    """Paths and formats of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = Checkpoints(path / "checkpoints")

    @staticmethod
    def create(runs: Path, label: str, *, name: str | None = None) -> "RunFolder":
        """A new folder below `runs`: of that name, or named by time and label.

        Raises EpalmError: it cannot be made, or one of that name is there and not empty.
        """
        if name and (Path(name).name != name or not name.isprintable()):  # surrogates, which safetensors does not open
            raise UsageError(f"--run {name!a} is not the name of a folder", hint="--runs takes the path above it")
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        names = [name] if name else [f"{stamp}-{label}{'' if n == 1 else f'-{n}'}" for n in range(1, 100)]
        for path in (runs / chosen for chosen in names):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not name or not path.is_dir() or any(not inner.name.startswith(".") for inner in path.iterdir()):
                    continue
            except OSError as error:
                raise EpalmError(f"the run folder cannot be made: {error}", hint="give another --runs") from error
            return RunFolder(path)
        raise UsageError(f"{runs / names[-1]} is there already", hint="give another --run")

    @staticmethod
    def find(runs: Path, name: str | None = None, *, modality: str | None = None) -> "RunFolder":
        """The run in that folder or of that name below `runs`; without a name the one that ended last.

        With `modality`, of that modality, and not trained blind. One that cannot be used is passed over with a warning.
        Raises UsageError: there is no such run.
        """
        if name is not None:
            for path in (runs / name, Path(name)):
                if (path / "config.toml").is_file():
                    return RunFolder(path)
            raise UsageError(f"{name!r} is no run folder and none below {runs}", hint=f"look into {runs}")
        depths = ("*", "demo-*/*")  # where the demo puts its runs
        ended = [path for sign in (_SUMMARY, _TENSORS) for depth in depths for path in runs.glob(f"{depth}/{sign}")]
        for path in sorted(ended, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            run = RunFolder(path.parent)
            try:
                fits = modality is None or (run.inputs["modality"] == modality and not run.config.model.blind)
                _ = run.config, run.inputs["modality"], run.summary
                if not [*run.path.glob(_TENSORS), *run.checkpoints.folder.glob(f"*/{_TENSORS}")]:
                    raise UsageError("it has no checkpoint")
            except (EpalmError, OSError, ValueError, KeyError, TypeError) as error:
                warn(f"{run.path} is newer and cannot be used: {error}")
            else:
                if fits:
                    return run
        first = f"epalm extract --modality {modality}, then " if modality else ""
        what = f"no run for {modality}" if modality else "no run"
        raise UsageError(f"there is {what} in {runs} yet", hint=f"{first}epalm train --from-cache")

    def begin(self, config: Config, inputs: Mapping[str, Any]) -> None:
        """Note what the run works on; a language model in a folder is named so that it is found from anywhere."""
        with writing(self.path):
            write_atomically(self.path / "inputs.json", _json(inputs))
            write_atomically(self.path / "config.toml", config.from_anywhere().to_toml().encode())
            fsync(self.path.parent)

    @property
    def has_begun(self) -> bool:
        """Whether `begin` was called, and came to its end."""
        return (self.path / "config.toml").is_file()

    def go_on_from(self, step: int) -> None:
        """Take away what was reported after a step, and what a kill has left: for the process that has the folder."""
        lines = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
        with writing(self.path):
            write_atomically(self.metrics, "".join(lines).encode())
            for path in self.path.iterdir():
                if _DRAFT.fullmatch(path.name):
                    path.unlink()

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Append one line of metrics."""
        with writing(self.path), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics; torn ones are passed over."""
        lines = []
        text = self.metrics.read_text(encoding="utf-8", errors="replace") if self.metrics.is_file() else ""
        for line in text.splitlines():
            with suppress(ValueError):
                lines.append(json.loads(line))
        return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]

    def end(self, summary: Mapping[str, Any]) -> None:
        """Note that the training is done, and what came of it: it is the run that ended last."""
        with writing(self.path):
            write_atomically(self.path / _SUMMARY, _json(summary))

    def make_latest(self) -> None:
        """Let a run that is done count as the one that ended last."""
        with suppress(OSError):  # a folder that cannot be written
            os.utime(self.path / _SUMMARY)

    @property
    def summary(self) -> dict[str, Any] | None:
        """What `end` was given; None while the training is not done. Raises UsageError when it is damaged."""
        return _read_json(self.path / _SUMMARY) if (self.path / _SUMMARY).exists() else None

    @property
    def config(self) -> Config:
        """The resolved settings."""
        return read_config((self.path / "config.toml").read_text(encoding="utf-8"), str(self.path / "config.toml"))

    @property
    def inputs(self) -> dict[str, Any]:
        """What `begin` was given. Raises UsageError when the file is damaged."""
        return _read_json(self.path / "inputs.json")

    def save_only(self, tensors: "Mapping[str, torch.Tensor]", *, step: int) -> None:
        """Write the only checkpoint of a run that is not trained here: an export's, an import's."""
        with writing(self.path):
            write_tensors(self.path / _TENSORS, tensors, {"step": str(step)})

    def load(self, kind: str = BEST) -> "tuple[dict[str, torch.Tensor], int]":
        """The trained tensors of a checkpoint, "best" or "latest", and its step; an export has one.

        Raises UsageError: it is not there, or damaged.
        """
        if kind not in (BEST, LATEST):
            raise UsageError(f"there is no checkpoint {kind!r}", hint=f"use {BEST} or {LATEST}")
        if (self.path / _TENSORS).is_file():
            tensors, metadata = read_tensors(self.path / _TENSORS)
            return tensors, int(metadata.get("step", 0))
        checkpoint = self.checkpoints.named(kind)
        if checkpoint is None:
            raise UsageError(
                f"{self.path} has no {kind} checkpoint yet",
                hint="the same epalm train goes on with it; --checkpoint latest takes a run that is not validated yet",
            )
        return checkpoint.verified().tensors(TRAINABLE), int(checkpoint.state["step"])


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Have the run folder alone until the process ends, however; where the file system has no locks, go without.

    Raises UsageError: another process has it.
    """
    with writing(run.path):
        file = (run.path / _LOCK).open("ab")
    with file:
        for wait in _WAITS:
            time.sleep(wait)
            if take_lock(file.fileno()):
                yield
                return
        raise UsageError(f"{run.path} is in use by another process", hint="wait for it, end it, or give another --run")


def is_locked(run: RunFolder) -> bool:
    """Whether a process works in the run folder now, as far as that can be told."""
    try:
        with (run.path / _LOCK).open("rb") as file:
            return not take_lock(file.fileno(), shared=True)
    except OSError:
        return False


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one message. Raises EpalmError."""
    try:
        yield
    except OSError as error:
        raise EpalmError(
            f"{folder} cannot be written: {error}",
            hint="free space or rights, or give another --runs, then run the same command again",
        ) from error


def require_room(folder: Path, needed: int) -> None:
    """Raise EpalmError when `needed` bytes would not fit below a folder, a margin left."""
    durable.require_room(needed, free_bytes(folder), folder, "free space, or give another --runs")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="train again, or take another --run") from error


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(value), indent=2, sort_keys=True) + "\n").encode()
