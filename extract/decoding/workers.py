"""Decoding in processes of their own, while the encoder computes in this one: the pool, and what its processes do.

A decoder that crashes or hangs on a hostile file takes only its process with it: that file becomes a MediaError, the
process is replaced, the others go on. What a process gets is pickled; what comes back is not trusted (see `process`).
"""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import queue
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from traceback import extract_tb
from typing import NamedTuple

import numpy as np

from epalm.errors import MediaError
from epalm.extract.decoding.process import (
    CLOSED,
    READY,
    Answer,
    DecodingProcess,
    Job,
    Jobs,
    plain,
    send_answer,
    sendable,
)
from epalm.extract.inputs.augment import View
from epalm.extract.media.limits import collected_warnings, joined, out_of_memory
from epalm.media import MediaFile

_MOST_WORKERS = 16
_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG
Reader = Callable[[MediaFile, Sequence[View]], np.ndarray]  # the part of an `Input` that decodes


class Request(NamedTuple):
    """One medium to decode, and the views of it."""

    medium: MediaFile
    views: tuple[View, ...]


class DecodePool:
    """`workers` processes that decode, all of them starting from now on; close it, or use it as a context.

    With 0 workers, media are decoded in this process: without a limit of time or memory, and a crash is one of all.
    It serves any number of `decode` calls, one after the other or from several threads.
    """

    def __init__(self, read: Reader, workers: int, *, timeout: float = 120.0, memory_limit: int | None = None) -> None:
        """`timeout` in seconds for one medium; `memory_limit` in bytes for one process (on Linux)."""
        self._read, self._closed = read, False
        self._jobs: Jobs = queue.SimpleQueue()
        orders = pickle.dumps((read, memory_limit)) if workers else b""
        self._processes = [DecodingProcess(self._jobs, workers, orders, timeout) for _ in range(workers)]
        for process in self._processes:
            process.start()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_fault: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process at once: no medium that is being decoded is waited for."""
        self._closed = True
        for process in self._processes:
            process.close()
            self._jobs.put(None)
        for process in self._processes:
            process.join()
        while not self._jobs.empty():
            if (job := self._jobs.get()) and not job.answer.cancelled():
                job.answer.set_exception(RuntimeError(CLOSED))

    def decode(self, requests: Iterable[Request], *, ahead: int) -> Iterator[Answer]:
        """Each request's answer, in order; at most `ahead` are under way or held while the caller is busy.

        All processes have work where `ahead` is twice their number. Requests are taken up as they are needed. Raises
        EpalmError: no process can be started.
        """
        if not self._processes:
            yield from (attempt(self._read, *request) for request in requests)
            return
        waiting: deque[Job] = deque()
        try:
            for request in requests:
                waiting.append(Job(request, Future()))
                self._jobs.put(waiting[-1])
                if self._closed:
                    raise RuntimeError(CLOSED)
                if len(waiting) >= ahead:
                    yield waiting.popleft().answer.result()
            while waiting:
                yield waiting.popleft().answer.result()
        finally:
            for job in waiting:
                job.answer.cancel()


def attempt(read: Reader, medium: MediaFile, views: Sequence[View]) -> Answer:
    """Decode one medium; whatever its bytes make the decoder raise is a fault of this medium, and of no other."""
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
    return Answer(result, joined(warnings))


def serve(descriptor: int) -> None:
    """The life of a decoding process: a reader once, then a medium in and an answer out, until its socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.set_blocking(2, False)  # what a decoder says beyond the pipe's capacity is dropped
    faulthandler.enable()  # a crash says where, on stderr
    if sys.platform == "linux":  # elsewhere it ends when it next reads from its socket or writes to it
        ctypes.CDLL(None).prctl(_SIGNAL_OF_PARENTS_DEATH, int(signal.SIGKILL), 0, 0, 0)
    with (
        socket.socket(fileno=descriptor) as pipe,
        pipe.makefile("rb") as orders,
        contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError),
    ):
        read, memory = pickle.load(orders)
        _limit_memory(memory)
        pipe.sendall(READY)
        while True:
            send_answer(pipe, attempt(read, *pickle.load(orders)))


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
        now = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = now + beyond if hard == resource.RLIM_INFINITY else min(now + beyond, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def default_workers(*, gpu: bool = False, cores: int | None = None) -> int:
    """A decoding process per core [default: those that may be used], 1 to 16; one less where the encoder needs one."""
    from dask.system import cpu_count  # not for the processes, which start without it

    cores = cores or cpu_count()
    return max(1, min(_MOST_WORKERS, cores if gpu else cores - 1))
