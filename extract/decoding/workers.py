"""Decoding in processes of their own, while the encoder computes in this one.

A decoder that crashes or hangs on a hostile file takes only its process with it: that file becomes a MediaError, the
process is replaced, the others go on. Results come in the order of the requests. Knows neither encoders nor caches.
"""

import pickle
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from epalm.cores import usable_cores
from epalm.errors import MediaError
from epalm.extract.decoding.child import Reader, attempt
from epalm.extract.decoding.process import ClosedError, DecodingProcess, Job, Jobs
from epalm.extract.inputs.augment import View
from epalm.extract.media.limits import MediaWarning
from epalm.media import MediaFile

DEFAULT_TIMEOUT = 120.0  # seconds for one file
DEFAULT_MEMORY = 4 << 30  # bytes that one process may take beyond what it starts with
_MOST_WORKERS = 16


class Request(NamedTuple):
    """One medium to decode, and the views of it."""

    medium: MediaFile
    views: tuple[View, ...]


class Decoded(NamedTuple):
    """What the reader gave, or why there is nothing; `seconds` is what decoding took, waiting not counted."""

    request: Request
    result: np.ndarray | MediaError
    seconds: float
    warning: MediaWarning | None = None  # of a medium that gave an array


class DecodePool:
    """`workers` processes that decode, all of them starting from now on; close it, or use it as a context.

    With 0 workers, media are decoded in this process: without a limit of time or memory, and a crash is one of all.
    It serves any number of `decode` calls, one after the other or from several threads.
    """

    def __init__(
        self,
        read: Reader,
        workers: int,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        memory_limit: int | None = DEFAULT_MEMORY,
    ) -> None:
        """`timeout` in seconds for one medium; `memory_limit` in bytes for one process (on Linux)."""
        self._read = read
        self._jobs: Jobs = queue.SimpleQueue()
        self._closed = False
        orders = pickle.dumps((read, memory_limit)) if workers else b""
        self._processes = [DecodingProcess(self._jobs, workers, orders, timeout) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=process.run, name=f"decode-{number}", daemon=True)
            for number, process in enumerate(self._processes)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_fault: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process at once: no medium that is being decoded is waited for."""
        self._closed = True
        for process in self._processes:
            process.close()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            if job := self._jobs.get():
                job.done.set_exception(ClosedError())

    def decode(self, requests: Iterable[Request], *, ahead: int) -> Iterator[Decoded]:
        """Each request's result, in order; at most `ahead` are under way or held while the caller is busy.

        All processes have work where `ahead` is twice their number. Requests are taken up as they are needed.

        Raises:
            EpalmError: no process can be started.
        """
        if not self._threads:
            for request in requests:
                yield Decoded(request, *attempt(self._read, *request))
            return
        waiting: deque[tuple[Request, Job]] = deque()
        left = threading.Event()
        try:
            for request in requests:
                job = Job(*request, left)
                waiting.append((request, job))
                self._jobs.put(job)
                if self._closed:
                    raise ClosedError
                if len(waiting) >= ahead:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            left.set()


def _next(waiting: deque[tuple[Request, Job]]) -> Decoded:
    request, job = waiting.popleft()
    return Decoded(request, *job.done.result())


def default_workers(*, gpu: bool = False, cores: int | None = None) -> int:
    """A decoding process per core [default: those that may be used], 1 to 16; one less where the encoder needs one."""
    cores = usable_cores() if cores is None else cores
    return max(1, min(_MOST_WORKERS, cores if gpu else cores - 1))
