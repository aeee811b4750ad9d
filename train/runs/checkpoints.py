"""Checkpoints of a run: folders that are there whole or not at all, and that are read when their digests agree.

`step-N/` holds one safetensors file a part (`trainable`, `optimiser`) and `state.json`, with the digests of
the others and its own. `latest` and `best` are files that hold the name of one such folder. Knows files; does not know
what the tensors mean.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from epalm.cache.objects.durable import fsync, write_atomically
from epalm.console import warn
from epalm.errors import UsageError

if TYPE_CHECKING:
    import torch

BEST, LATEST = "best", "latest"
TRAINABLE = "trainable"
_STATE = "state.json"
_NAME = re.compile(r"step-([0-9]{1,18})", re.ASCII)
_KEPT = 2  # newest checkpoints, beside the best one


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The folder of one, and what `Checkpoints.write` was given as its state."""

    path: Path
    state: Mapping[str, Any]

    @staticmethod
    def open(path: Path) -> "Checkpoint":
        """With its state; its tensors are not looked at. Raises UsageError: it is damaged, or not there."""
        try:
            state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
            digest = state.pop("digest")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(path, f"cannot be read: {error}") from error
        if digest != xxhash.xxh3_128_hexdigest(_json(state)):
            raise _damaged(path, f"is damaged: {_STATE} is not what was written")
        return Checkpoint(path, state)

    def verified(self) -> "Checkpoint":
        """The same, once its files are known to be what was written. Raises UsageError: they are not."""
        for name, digest in self.state["files"].items():
            try:
                whole = _digest_of(self.path / name) == digest
            except OSError as error:
                raise _damaged(self.path, f"cannot be read: {error}") from error
            if not whole:
                raise _damaged(self.path, f"is damaged: {name} is not what was written")
        return self

    def tensors(self, part: str) -> "dict[str, torch.Tensor]":
        """The tensors of a part, on the CPU."""
        return read_tensors(self.path / f"{part}.safetensors")[0]


class Checkpoints:
    """All checkpoints of one run; `folder` is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self, step: int, parts: "Mapping[str, Mapping[str, torch.Tensor]]", state: Mapping[str, Any], *, best: bool
    ) -> None:
        """Add the checkpoint of a step, which is the latest from then on, and take away what is older.

        Raises OSError: it cannot be written; those before are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        fsync(self.folder.parent)
        draft = self.folder / f".step-{step}"  # a name that is never read
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            for part, tensors in parts.items():
                write_tensors(draft / f"{part}.safetensors", tensors)
            content = {**state, "files": {path.name: _digest_of(path) for path in draft.iterdir()}}
            digest = xxhash.xxh3_128_hexdigest(_json(content))
            write_atomically(draft / _STATE, _json({**content, "digest": digest}))
            draft.rename(self.folder / f"step-{step}")
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        fsync(self.folder)
        if best:
            self._point(BEST, step)
        self._point(LATEST, step)
        self._prune(step)

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole, damaged ones passed over with a warning; None where none was ever written.

        Raises UsageError: there are some, and none is whole.
        """
        names = [f"step-{step}" for step in self._steps()]
        latest = self.name_of(LATEST)
        if latest and latest not in names:
            names.insert(0, latest)
        for name in names:
            if whole := self.whole(name):
                return whole
        if names:
            fault = f"no checkpoint in {self.folder} is whole"
            raise UsageError(fault, hint=f"begin again: move {self.folder.parent} away, then run the same command")
        return None

    def go_on_from(self, checkpoint: Checkpoint, *, best: int | None) -> None:
        """Make it the latest, and the one of step `best` the best; what is newer or a leftover goes."""
        latest = int(checkpoint.path.name.removeprefix("step-"))
        if best is None:
            (self.folder / BEST).unlink(missing_ok=True)
        else:
            self._point(BEST, best)
        self._point(LATEST, latest)
        self._prune(latest)
        for path in self.folder.glob(".*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def whole(self, name: str) -> Checkpoint | None:
        """The one in a folder; None, with a warning, where it is damaged or not there."""
        try:
            return Checkpoint.open(self.folder / name).verified()
        except UsageError as error:
            warn(f"{error.message}; it is passed over")
        return None

    def name_of(self, kind: str) -> str | None:
        """The folder that `best` or `latest` stands for; None where there is none yet."""
        try:
            name = (self.folder / kind).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return name if _NAME.fullmatch(name) else None

    def named(self, kind: str) -> Checkpoint | None:
        """The one that `best` or `latest` stands for, not verified. Raises UsageError: it is damaged."""
        name = self.name_of(kind)
        return Checkpoint.open(self.folder / name) if name else None

    def _prune(self, newest: int) -> None:
        """Take away all but the best and the two latest, up to `newest`."""
        steps = self._steps()
        kept = [f"step-{step}" for step in steps if step <= newest][:_KEPT]
        for name in {f"step-{step}" for step in steps}.difference(kept, [self.name_of(BEST)]):
            shutil.rmtree(self.folder / name)  # killed on the way, it is damaged, and older than what is read

    def _steps(self) -> list[int]:
        """Of the checkpoints that are there, the newest first."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted((int(match[1]) for match in names if match), reverse=True)

    def _point(self, kind: str, step: int) -> None:
        write_atomically(self.folder / kind, f"step-{step}\n".encode())


def write_tensors(path: Path, tensors: "Mapping[str, torch.Tensor]", metadata: dict[str, str] | None = None) -> None:
    """Write named tensors, so that they survive a power cut. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error).rpartition("error: ")[2]) from error
    fsync(path)


def read_tensors(path: Path) -> "tuple[dict[str, torch.Tensor], dict[str, str]]":
    """Named tensors of a file, and its metadata. Raises UsageError: it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="train again, or take another --run") from error


def _damaged(path: Path, what: str) -> UsageError:
    return UsageError(f"the checkpoint {path} {what}", hint="the same epalm train goes on from the one before it")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
