"""A run folder: settings, inputs, metrics and checkpoints of one training, and which run was the latest.

`config.toml` (resolved), `inputs.json`, `metrics.jsonl`, `checkpoints/{best,last}/trainable.safetensors`. Only
trained tensors are saved. Knows files; does not know how the numbers come about.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from epalm.cache.durable import write_atomically
from epalm.config import Config, read_config
from epalm.console import size_in_words
from epalm.errors import EpalmError, UsageError

_TENSORS = "trainable.safetensors"
LATEST = "latest"
_MARGIN = 64 << 20  # bytes that are left free


class RunFolder:
    """Paths and formats of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.metrics = path / "metrics.jsonl"

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
        """The run in that folder or of that name below `runs`; without a name the latest.

        Raises:
            UsageError: there is no such run.
        """
        if name is None:
            latest = runs / LATEST
            if not latest.is_file():
                raise UsageError(f"there is no run in {runs} yet", hint="epalm train --from-cache")
            name = latest.read_text().strip()
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
        found = []
        for depth in ("*", "*/*"):
            for path in runs.glob(f"{depth}/checkpoints/best/{_TENSORS}"):
                run = RunFolder(path.parents[2])
                if run.inputs["modality"] == modality and not run.config.model.blind:
                    found.append((path.stat().st_mtime, run))
        if not found:
            raise UsageError(
                f"{runs} has no run for {modality} yet",
                hint=f"epalm extract --modality {modality}, then epalm train --from-cache",
            )
        return max(found, key=lambda pair: pair[0])[1]

    def begin(self, config: Config, inputs: Mapping[str, Any]) -> None:
        """Note what the run works on."""
        with writing(self.path):
            write_atomically(self.path / "inputs.json", _json(inputs))
            write_atomically(self.path / "config.toml", config.to_toml().encode())

    def finish(self, runs: Path | None = None) -> None:
        """Make this the latest run of `runs` [default: the folder that it lies in]."""
        runs = runs or self.path.parent
        with writing(runs):
            write_atomically(runs / LATEST, (self.path.relative_to(runs).as_posix() + "\n").encode())

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Append one line of metrics."""
        with writing(self.path), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    @property
    def config(self) -> Config:
        """The resolved settings."""
        return read_config((self.path / "config.toml").read_text(encoding="utf-8"), str(self.path / "config.toml"))

    @property
    def inputs(self) -> dict[str, Any]:
        """What `begin` was given. Raises UsageError when the file is damaged."""
        path = self.path / "inputs.json"
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}", hint="train again, or score another --run") from error
        return value

    def save(self, kind: str | None, tensors: Mapping[str, torch.Tensor], *, step: int) -> None:
        """Write a checkpoint, "best" or "last", in place of the one before; None: the only one, as an export has it."""
        folder = self.path / "checkpoints" / kind if kind else self.path
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _TENSORS, save(plain, metadata={"step": str(step)}))

    def load(self, kind: str = "best") -> tuple[dict[str, torch.Tensor], int]:
        """A checkpoint's tensors and step; an export has one. Raises UsageError when it is not there or damaged."""
        only = self.path / _TENSORS
        path = only if only.is_file() else self.path / "checkpoints" / kind / _TENSORS
        try:
            with safe_open(path, framework="pt") as file:
                step = int((file.metadata() or {}).get("step", 0))
                return {name: file.get_tensor(name) for name in file.keys()}, step  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path} cannot be read: {error}", hint="train again, or score another --run") from error


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


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(value), indent=2, sort_keys=True) + "\n").encode()
