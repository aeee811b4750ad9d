"""Files that are there whole or not at all, even after a power cut. Knows bytes and names only."""

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path`, replacing what is there in one step."""
    draft = _draft(path, data)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    fsync_directory(path.parent)


def link_first_wins(path: Path, data: bytes | memoryview) -> bool:
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


def fsync_directory(folder: Path) -> None:
    """Make names that were put into `folder` survive a power cut."""
    _fsync(folder)


def _draft(path: Path, data: bytes | memoryview) -> Path:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
