"""One process at a time in a run folder: a lock that ends with the process, however it ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epalm.cache.objects.durable import take_lock
from epalm.errors import UsageError
from epalm.train.runs.run_folder import RunFolder, writing

_LOCK = ".lock"
_WAITS = (0.0, 0.05, 0.2)  # seconds: who only looks whether there is a lock holds it for a moment


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Have the run folder alone; where the file system has no locks, go without.

    Raises:
        UsageError: another process has it.
    """
    path = run.path / _LOCK
    with writing(run.path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not any(_take(descriptor, wait) for wait in _WAITS):
            raise UsageError(
                f"{run.path} is in use by {_holder(path)}", hint="wait for it, end it, or give another --run"
            )
        with writing(run.path):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(run: RunFolder) -> bool:
    """Whether a process works in the run folder now, as far as that can be told."""
    try:
        descriptor = os.open(run.path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not take_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def discard_empty(run: RunFolder) -> None:
    """Take a run folder away in which nothing was begun, and nobody works."""
    if {path.name for path in run.path.iterdir()} <= {_LOCK} and not is_locked(run):
        (run.path / _LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # something has come into it: it stays
            run.path.rmdir()


def _take(descriptor: int, wait: float) -> bool:
    time.sleep(wait)
    return take_lock(descriptor)


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_bytes())
        return f"process {int(told['pid'])} on {told['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
