"""A run folder: settings, inputs, metrics and checkpoints of one training, and which run was the latest.

`config.toml` (resolved), `inputs.json`, `metrics.jsonl`, `checkpoints/` and, when it is done, `summary.json`. Knows
files; does not know how the numbers come about.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.objects.durable import fsync_directory, fsync_file, write_atomically
from epalm.config import Config, read_config
from epalm.console import size_in_words, warn
from epalm.errors import EpalmError, UsageError
from epalm.train.runs.checkpoints import BEST, LATEST, TRAINABLE, Checkpoints, read_tensors, write_tensors

if TYPE_CHECKING:
    import torch

_TENSORS = f"{TRAINABLE}.safetensors"
_POINTER = "latest"  # in the folder of the runs: the one that finished last
_POINTER_SIGN = "# written by epalm: the run that finished last"
_DRAFT = re.compile(r"\.(config\.toml|(inputs|summary|scores)\.json)\.[0-9a-f]{8}")  # what a kill leaves of a file
_SUMMARY = "summary.json"
_MARGIN = 64 << 20  # bytes that are left free


class RunFolder:
    """Paths and formats of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = Checkpoints(path / "checkpoints")

    @staticmethod
    def create(runs: Path, label: str, *, name: str | None = None) -> "RunFolder":
        """A new folder below `runs`: of that name, or named by time and label.

        Raises:
            EpalmError: it cannot be made, or one of that name is there.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        names = [name] if name else [f"{stamp}-{label}{'' if n == 1 else f'-{n}'}" for n in range(1, 100)]
        for chosen in names:
            if Path(chosen).name != chosen:
                raise UsageError(f"--run {chosen!r} is not the name of a folder", hint="--runs takes the path above it")
            try:
                (runs / chosen).mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise EpalmError(f"the run folder cannot be made: {error}", hint="give another --runs") from error
            return RunFolder(runs / chosen)
        raise UsageError(f"{runs / names[-1]} is there already", hint="give another --run")

    @staticmethod
    def find(runs: Path, name: str | None = None) -> "RunFolder":
        """The run in that folder or of that name below `runs`; without a name the latest that can be used.

        Raises:
            UsageError: there is no such run.
        """
        if name is None:
            return _latest(runs)
        for path in (runs / name, Path(name)):
            if (path / "config.toml").is_file():
                return RunFolder(path)
        raise UsageError(f"{name!r} is no run folder and none below {runs}", hint=f"look into {runs}")

    @staticmethod
    def latest_of(runs: Path, modality: str) -> "RunFolder":
        """The newest run of that modality below `runs` that was not trained blind.

        Raises:
            UsageError: there is none.
        """
        for run in _newest_first(runs):
            if run.inputs["modality"] == modality and not run.config.model.blind:
                return run
        raise UsageError(
            f"{runs} has no run for {modality} yet",
            hint=f"epalm extract --modality {modality}, then epalm train --from-cache",
        )

    def begin(self, config: Config, inputs: Mapping[str, Any]) -> None:
        """Note what the run works on; a language model in a folder is named so that it is found from anywhere."""
        with writing(self.path):
            write_atomically(self.path / "inputs.json", _json(inputs))
            write_atomically(self.path / "config.toml", config.from_anywhere().to_toml().encode())
            fsync_directory(self.path.parent)

    @property
    def has_begun(self) -> bool:
        """Whether `begin` was called, and came to its end."""
        return (self.path / "config.toml").is_file()

    @property
    def fault(self) -> str | None:
        """What keeps a trained run from being used, such as "it is not there"; tensors are not read for it."""
        if not self.path.is_dir():
            return "it is not there"
        try:
            _ = self.config, self.inputs["modality"], self.summary
        except (EpalmError, OSError, ValueError, KeyError, TypeError) as error:
            return str(error)
        folders = [self.path]  # an export's
        folders += [self.checkpoints.folder / name for name in self.checkpoints.listed().values()]
        return None if any((folder / _TENSORS).is_file() for folder in folders) else "it has no checkpoint"

    @property
    def is_untouched(self) -> bool:
        """Whether the folder holds no run yet, and nothing else either but what a kill before `begin` leaves."""
        return all(path.name.startswith(".") or path.name == "inputs.json" for path in self.path.iterdir())

    def finish(self, runs: Path | None = None) -> None:
        """Make this the latest run of `runs` [default: the folder that it lies in]; a user's own file stays."""
        runs = runs or self.path.parent
        pointer = runs / _POINTER
        if os.path.lexists(pointer) and _pointed_at(runs) is None:
            warn(f"{pointer} is no file of epalm's and stays: commands without --run do not find {self.name}")
            return
        with writing(runs):
            write_atomically(pointer, f"{self.path.relative_to(runs).as_posix()}\n{_POINTER_SIGN}\n".encode())

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Append one line of metrics."""
        with writing(self.path), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics; torn ones are passed over."""
        found = []
        text = self.metrics.read_text(encoding="utf-8", errors="replace") if self.metrics.is_file() else ""
        for line in text.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict) and isinstance(line.get("step"), int)]

    def metrics_bytes(self) -> int:
        """How long the metrics are, once they are sure to survive a power cut."""
        with writing(self.path):
            self.metrics.touch()
            fsync_file(self.metrics)
            return self.metrics.stat().st_size

    def cut_metrics(self, size: int) -> None:
        """Take away what was reported after the metrics were `size` bytes long: it is going to be reported again."""
        with writing(self.path):
            self.metrics.touch()
            there = self.metrics.stat().st_size
            if there < size:
                warn(f"{self.metrics} is {size - there:,} bytes shorter than it was; its last lines are lost")
            os.truncate(self.metrics, min(there, size))

    def sweep(self) -> None:
        """Take away the drafts that a kill has left. Only for the process that has locked the folder."""
        with writing(self.path):
            for path in self.path.iterdir():
                if _DRAFT.fullmatch(path.name):
                    path.unlink()

    def end(self, summary: Mapping[str, Any]) -> None:
        """Note that the training is done, and what came of it."""
        with writing(self.path):
            write_atomically(self.path / _SUMMARY, _json(summary))

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

        Raises:
            UsageError: it is not there, or damaged.
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
        return checkpoint.tensors(TRAINABLE), int(checkpoint.state["step"])


def _latest(runs: Path) -> RunFolder:
    """The run that finished last; where that cannot be used the newest finished one that can be, with a warning.

    Raises:
        UsageError: there is none.
    """
    pointer, run, passed_over = runs / _POINTER, _pointed_at(runs), None
    if run is not None:
        passed_over = run.fault
        if passed_over is None:
            return run
        passed_over = f"{run.path}, the latest run, cannot be used: {passed_over}"
    finished = (run for run in _newest_first(runs) if run.summary is not None or "key" not in run.inputs)
    newest = next(finished, None)
    if newest is None:
        raise UsageError(passed_over or f"there is no run in {runs} yet", hint="epalm train --from-cache")
    warn(f"{passed_over or f'{pointer} is missing'}; taken instead: {newest.path}, the newest that can be used")
    return newest


def _pointed_at(runs: Path) -> RunFolder | None:
    """The run that `latest` names; None where there is no such file, or one that epalm did not write."""
    try:
        name, _, sign = (runs / _POINTER).read_text(encoding="utf-8").rstrip("\n").partition("\n")
    except (OSError, ValueError):
        return None
    run = RunFolder(runs / name)
    return run if name and (sign == _POINTER_SIGN or (not sign and run.has_begun)) else None  # 0.1 did not sign


def _newest_first(runs: Path) -> Iterator[RunFolder]:
    """The runs in a folder and one level deeper that can be used, those saved last first."""
    saved = [
        path
        for depth in ("", "*/")
        for name in (f"checkpoints/{BEST}", _TENSORS)
        for path in runs.glob(f"{depth}*/{name}")
    ]
    for path in sorted(saved, key=lambda path: path.stat().st_mtime, reverse=True):
        run = RunFolder(path.parent if path.name == _TENSORS else path.parents[1])
        if run.fault is None:
            yield run


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


def free_bytes(folder: Path) -> int | None:
    """What still fits below a folder, which need not be there yet; None where that is not known."""
    there = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()), None)
    return shutil.disk_usage(there).free if there else None


def require_room(folder: Path, needed: int) -> None:
    """Raise EpalmError when `needed` bytes would not fit below a folder, a margin left."""
    free = free_bytes(folder)
    if needed and free is not None and needed + _MARGIN > free:
        raise EpalmError(
            f"{size_in_words(needed)} do not fit below {folder}: {size_in_words(free)} are free, and "
            f"{size_in_words(_MARGIN)} of them are kept",
            hint="free space, or give another --runs",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="train again, or take another --run") from error


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(value), indent=2, sort_keys=True) + "\n").encode()
