"""Checkpoints of a run: folders that are there whole or not at all, and that are read when their digests agree.

`step-N/` holds one safetensors file a part (`trainable`, `optimiser`, `random`) and `state.json`, with the digests of
the others and its own. `latest` and `best` are files that hold the name of one such folder. Knows files; does not know
what the tensors mean.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from epalm.cache.objects.durable import fsync_directory, fsync_file, write_atomically
from epalm.console import warn
from epalm.errors import UsageError

if TYPE_CHECKING:
    import torch

BEST, LATEST = "best", "latest"
TRAINABLE = "trainable"
_STATE, _DIGEST = "state.json", "digest"
_NAME = re.compile(r"step-([0-9]{1,18})", re.ASCII)
_KEPT = 2  # newest checkpoints, beside the best one
_READ = 1 << 22  # bytes


class DamagedError(UsageError):
    """A checkpoint whose files are not what was written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that was found whole: its folder, and what `Checkpoints.write` was given as its state."""

    path: Path
    state: Mapping[str, Any]

    def tensors(self, part: str) -> "dict[str, torch.Tensor]":
        """The tensors of a part, on the CPU."""
        return read_tensors(self.path / f"{part}.safetensors")[0]


class Checkpoints:
    """All checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when something is written."""
        self.folder = folder

    def write(
        self, step: int, parts: "Mapping[str, Mapping[str, torch.Tensor]]", state: Mapping[str, Any], *, best: bool
    ) -> None:
        """Add the checkpoint of a step, which is the latest from then on, and take away what is older.

        Raises:
            OSError: it cannot be written; those before are as they were.
        """
        final = self.folder / f"step-{step}"
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            fsync_directory(self.folder.parent)
        draft = self._hidden(final)
        draft.mkdir()
        try:
            digests = {}
            for part, tensors in parts.items():
                path = draft / f"{part}.safetensors"
                write_tensors(path, tensors)
                digests[path.name] = _digest_file(path)
            content = {**state, "files": digests}
            (draft / _STATE).write_bytes(_json({**content, _DIGEST: xxhash.xxh3_128_hexdigest(_json(content))}))
            fsync_file(draft / _STATE)
            fsync_directory(draft)
            draft.rename(final)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        fsync_directory(self.folder)
        if best:
            self._point(BEST, step)
        self._point(LATEST, step)
        self._prune()

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole, damaged ones passed over with a warning; None where none was ever written.

        Raises:
            DamagedError: there are some, and none is whole.
        """
        names = [f"step-{step}" for step in self._steps()]
        latest = self._target(LATEST)
        for name in names if latest is None or latest in names else [latest, *names]:
            try:
                return self._verified(name)
            except DamagedError as error:
                warn(f"{error.message}; it is passed over")
        if names or latest:
            raise DamagedError(
                f"no checkpoint in {self.folder} is whole",
                hint=f"begin again: move {self.folder.parent} away, then run the same command",
            )
        return None

    def go_on_from(self, checkpoint: Checkpoint, *, best: int | None) -> None:
        """Make it the latest, and the one of step `best` the best; what is newer or a leftover goes."""
        latest = int(checkpoint.path.name.removeprefix("step-"))
        if best is None:
            (self.folder / BEST).unlink(missing_ok=True)
        else:
            self._point(BEST, best)
        self._point(LATEST, latest)
        self._prune(newest=latest)
        for path in self.folder.glob(".*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def holds(self, step: int) -> bool:
        """Whether the checkpoint of a step is there and whole."""
        try:
            return bool(self._verified(f"step-{step}"))
        except DamagedError:
            return False

    def named(self, kind: str) -> Checkpoint | None:
        """The one that `best` or `latest` stands for; None where there is none yet. Raises DamagedError."""
        name = self._target(kind)
        return self._verified(name) if name else None

    def latest_state(self) -> Mapping[str, Any] | None:
        """What the latest one says of itself, its tensors not looked at; None where there is none. DamagedError."""
        name = self._target(LATEST)
        return _read_state(self.folder / name) if name else None

    def listed(self) -> dict[str, str]:
        """What `best` and `latest` stand for now."""
        return {kind: name for kind in (BEST, LATEST) if (name := self._target(kind))}

    def _prune(self, newest: int | None = None) -> None:
        """Take away all but the best and the two latest, up to `newest`."""
        steps = self._steps()
        kept = [step for step in steps if newest is None or step <= newest][:_KEPT]
        for step in steps:
            path = self.folder / f"step-{step}"
            if step not in kept and path.name != self._target(BEST):
                shutil.rmtree(path.rename(self._hidden(path)))

    def _steps(self) -> list[int]:
        """Of the checkpoints that are there, the newest first."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def _verified(self, name: str) -> Checkpoint:
        path = self.folder / name
        state = _read_state(path)
        try:
            wrong = [name for name, digest in state["files"].items() if _digest_file(path / name) != digest]
        except OSError as error:
            raise _damaged(path, f"cannot be read: {error}") from error
        if wrong:
            raise _damaged(path, f"is damaged: {wrong[0]} is not what was written")
        return Checkpoint(path, state)

    def _target(self, kind: str) -> str | None:
        try:
            name = (self.folder / kind).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return name if _NAME.fullmatch(name) else None

    def _point(self, kind: str, step: int) -> None:
        write_atomically(self.folder / kind, f"step-{step}\n".encode())

    def _hidden(self, path: Path) -> Path:
        """Where a checkpoint lies while it is written or taken away: a kill leaves a name that is never read."""
        hidden = path.with_name(f".{path.name}")
        if hidden.exists():
            shutil.rmtree(hidden)
        return hidden


def write_tensors(path: Path, tensors: "Mapping[str, torch.Tensor]", metadata: dict[str, str] | None = None) -> None:
    """Write named tensors, so that they survive a power cut. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error).rpartition("error: ")[2]) from error
    fsync_file(path)


def read_tensors(path: Path) -> "tuple[dict[str, torch.Tensor], dict[str, str]]":
    """Named tensors of a file, and its metadata. Raises DamagedError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path} cannot be read: {error}", hint="train again, or take another --run") from error


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / _STATE).read_bytes())
        digest = content.pop(_DIGEST)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    if digest != xxhash.xxh3_128_hexdigest(_json(content)):
        raise _damaged(path, f"is damaged: {_STATE} is not what was written")
    return content


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(f"the checkpoint {path} {what}", hint="the same epalm train goes on from the one before it")


def _digest_file(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(_READ):
            hasher.update(part)
    return hasher.hexdigest()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
