"""One process at a time in a run folder: a lock that ends with the process, however it ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from epalm.cache.objects.durable import take_lock
from epalm.errors import EpalmError, UsageError
from epalm.train.runs.run_folder import RunFolder, writing

_LOCK = ".lock"
_WAITS = (0.0, 0.05, 0.2)  # seconds: whoever only looks whether there is a lock holds it for a moment


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Have the run folder alone; where the file system has no locks, go without.

    Raises:
        UsageError: another process has it.
    """
    with writing(run.path):
        file = (run.path / _LOCK).open("a+b")
    with file:
        for wait in _WAITS:
            time.sleep(wait)
            if taken := take_lock(file.fileno()):
                break
        if not taken:
            file.seek(0)
            holder = "another process"
            with suppress(ValueError, TypeError, KeyError):
                noted = json.loads(file.read())
                holder = f"process {int(noted['pid'])} on {noted['host']}"
            raise UsageError(f"{run.path} is in use by {holder}", hint="wait for it, end it, or give another --run")
        with writing(run.path):
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            file.flush()
        yield


def is_locked(run: RunFolder) -> bool:
    """Whether a process works in the run folder now, as far as that can be told."""
    try:
        with (run.path / _LOCK).open("rb") as file:
            return not take_lock(file.fileno(), shared=True)
    except OSError:
        return False


@contextmanager
def emptied_on_fault(run: RunFolder) -> Iterator[None]:
    """A fault before anything is written takes the run folder away, unless another process works in it."""
    try:
        yield
    except EpalmError:
        if {path.name for path in run.path.iterdir()} <= {_LOCK} and not is_locked(run):
            (run.path / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # something has come into it: it stays
                run.path.rmdir()
        raise
