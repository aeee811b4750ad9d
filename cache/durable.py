"""Files that are there whole or not at all, even after a power cut. Knows bytes and names only."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from epalm.errors import CacheError


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path`, replacing what is there in one step."""
    draft = _draft(path, data)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    fsync_directory(path.parent)


def link_first_wins(path: Path, data: bytes) -> bool:
    """Put `data` at `path` unless something is there already; whether this call was the first."""
    draft = _draft(path, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    fsync_directory(path.parent)
    return True


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and itself, survive a power cut."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            _fsync(Path(parent) / name)
        fsync_directory(Path(parent))


def fsync_directory(folder: Path) -> None:
    """Make names that were put into `folder` survive a power cut."""
    _fsync(folder)


def read_json(path: Path) -> Any:
    """A JSON file's value.

    Raises:
        CacheError: it is missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} cannot be read: {error}", hint="epalm cache verify says what is whole") from error


def _draft(path: Path, data: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
