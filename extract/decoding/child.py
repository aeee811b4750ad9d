"""The life of a decoding process: a reader once, then a medium in and an answer out, until its socket closes.

What comes from the parent is trusted (pickles); what goes back is not (see `answers`). Nothing is imported here that
the reader itself does not ask for, so that a process starts fast. Knows no pool and no time limit.
"""

import contextlib
import faulthandler
import pickle
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from epalm.errors import MediaError
from epalm.extract.decoding.answers import Answer, plain, send_answer, sendable
from epalm.extract.inputs.augment import View
from epalm.extract.media.limits import collected_warnings, joined, out_of_memory
from epalm.media import MediaFile

_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG
READY = b"+"  # sent once, when the reader is there
Reader = Callable[[MediaFile, Sequence[View]], np.ndarray]  # the part of an `Input` that decodes


def attempt(read: Reader, medium: MediaFile, views: Sequence[View]) -> Answer:
    """Decode one medium; whatever its bytes make the decoder raise is a fault of this medium, and of no other."""
    from traceback import extract_tb

    started = time.perf_counter()
    result: np.ndarray | MediaError
    with collected_warnings() as warnings:
        try:
            result = sendable(read(medium, views))
        except MediaError as error:
            result = error
        except MemoryError:
            result = out_of_memory("medium")
        except Exception as error:
            where = extract_tb(error.__traceback__)[-1]
            result = MediaError(
                f"the decoder failed in a way that it should not: {type(error).__name__}: {plain(str(error))}",
                hint=f"please report it, with the file ({Path(where.filename).name}:{where.lineno}, {where.name})",
            )
    return Answer(result, time.perf_counter() - started, joined(warnings))


def main(descriptor: int) -> None:
    """Serve the socket with this descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable()  # a crash says where, on stderr
    _end_with_parent()
    with (
        socket.socket(fileno=descriptor) as pipe,
        pipe.makefile("rb") as orders,
        contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError),
    ):
        read, memory = pickle.load(orders)
        _limit_memory(memory)
        pipe.sendall(READY)
        while True:
            medium, views = pickle.load(orders)
            send_answer(pipe, attempt(read, medium, views))


def _limit_memory(beyond: int | None) -> None:
    """Let this process take `beyond` more bytes than it has now, and be the first to go when memory runs out.

    What is limited is private memory (RLIMIT_DATA), not address space: libraries map gigabytes that they never use.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")
    if beyond is not None:
        status = Path("/proc/self/status").read_text()
        now = int(status.partition("VmData:")[2].split()[0]) * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = now + beyond if hard == resource.RLIM_INFINITY else min(now + beyond, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _end_with_parent() -> None:
    """Have the kernel end this process with the thread that started it, also in the middle of its work.

    Elsewhere than on Linux it ends when it next reads from its pipe or writes to it.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SIGNAL_OF_PARENTS_DEATH, int(signal.SIGKILL), 0, 0, 0)
