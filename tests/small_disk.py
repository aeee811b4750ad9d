"""File systems of a few pages or files, and such that cannot be written: real ones, where this user may mount them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def small_disk(folder: Path, **limits: int) -> Iterator[Path]:
    """A tmpfs at `folder` with limits such as `size` (bytes) and `nr_inodes`, where one may be mounted."""
    folder.mkdir(exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", _options(limits), "tmpfs", str(folder)):
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, **limits: int) -> None:
    """Other limits for a small disk."""
    assert _mount("-o", f"remount,{_options(limits)}", str(folder))


def make_read_only(folder: Path) -> None:
    """From now on a small disk is only read."""
    assert _mount("-o", "remount,ro", str(folder))


def _options(limits: dict[str, int]) -> str:
    return ",".join(f"{name}={value}" for name, value in limits.items())
