"""Decoding in processes of their own, while the encoder computes in this one.

A decoder that crashes or hangs on a hostile file takes only its process with it: that file becomes a MediaError, the
process is replaced, the others go on. Results come in the order of the requests. Knows neither encoders nor caches.
"""

import contextlib
import os
import pickle
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from epalm.errors import EpalmError, MediaError
from epalm.extract.decoder_child import Reader, attempt
from epalm.extract.decoder_process import DecoderProcess, KilledError
from epalm.extract.views import View
from epalm.extract.wire import Answer
from epalm.media import MediaFile

DEFAULT_TIMEOUT = 120.0  # seconds for one file
DEFAULT_MEMORY = 4 << 30  # bytes that one process may take beyond what it starts with
_MOST_WORKERS = 16
_STARTS = 3  # attempts, where a process is killed while it starts


@dataclass(frozen=True, slots=True)
class Request:
    """One medium to decode, and the views of it."""

    medium: MediaFile
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the reader gave, or why there is nothing; `seconds` is what decoding took, waiting not counted."""

    request: Request
    result: np.ndarray | MediaError
    seconds: float


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
        self._read, self._timeout = read, timeout
        self._orders = pickle.dumps((read, memory_limit)) if workers else b""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._processes: dict[int, DecoderProcess] = {}
        # The kernel ends a process with the thread that started it, so each has its own, for as long as the pool is.
        self._threads = [
            threading.Thread(target=self._drive, args=(number,), name=f"decode-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process at once: no medium that is being decoded is waited for."""
        with self._lock:
            self._closed = True
            for process in self._processes.values():
                process.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            if job := self._jobs.get():
                job.done.set_exception(_ClosedError("the pool is closed"))

    def decode(self, requests: Iterable[Request], *, ahead: int) -> Iterator[Decoded]:
        """Each request's result, in order; at most `ahead` are under way or held while the caller is busy.

        All processes have work where `ahead` is twice their number. Requests are taken up as they are needed.

        Raises:
            EpalmError: no process can be started.
        """
        if not self._threads:
            for request in requests:
                yield _decoded(request, attempt(self._read, request.medium, request.views))
            return
        waiting: deque[_Job] = deque()
        left = threading.Event()
        try:
            for request in requests:
                waiting.append(_Job(request, left))
                self._jobs.put(waiting[-1])
                if self._closed:
                    raise _ClosedError("the pool is closed")
                if len(waiting) >= ahead:
                    yield waiting.popleft().done.result()
            while waiting:
                yield waiting.popleft().done.result()
        finally:
            left.set()

    def _drive(self, number: int) -> None:
        """One thread's life: keep one process running, and hand it one job after the other."""
        try:
            with contextlib.suppress(EpalmError, _ClosedError):  # the first job tries again, and tells
                self._process(number)
            while self._do_next(number):
                pass
        finally:
            if process := self._processes.get(number):
                process.close()

    def _do_next(self, number: int) -> bool:
        """Wait for a job and do it; false when there will be none. Holds no result when it returns."""
        job = self._jobs.get()
        if job is None:
            return False
        if job.left.is_set():
            return True
        try:
            answer = self._process(number).decode(job.request.medium, job.request.views, self._timeout)
            job.done.set_result(_decoded(job.request, answer))
        except KilledError:
            # When memory runs out, the kernel may kill any process: only the second time is it the file's doing.
            if job.killed:
                message = "the decoder was killed on this file, twice"
                fault = MediaError(message, hint="if memory ran out, try again with fewer --workers")
                job.done.set_result(Decoded(job.request, fault, 0.0))
            else:
                job.killed = True
                self._jobs.put(job)
        except Exception as error:  # the one who waits for the result is told
            job.done.set_exception(error)
        return True

    def _process(self, number: int) -> DecoderProcess:
        """The thread's process; a new one where there is none that runs."""
        process = self._processes.get(number)
        if process and process.alive():
            return process
        for _ in range(_STARTS):
            if process:
                process.close()
            with self._lock:
                if self._closed:
                    raise _ClosedError("the pool is closed")
                process = self._processes[number] = DecoderProcess()
            with contextlib.suppress(KilledError):
                process.introduce(self._orders)
                return process
        raise EpalmError(
            f"a decoding process was killed {_STARTS} times while it started",
            hint="where memory has run out, use fewer --workers",
        )


class _ClosedError(RuntimeError):
    pass


@dataclass(slots=True)
class _Job:
    request: Request
    left: threading.Event  # set when nobody waits for the results any more
    done: "Future[Decoded]" = field(default_factory=Future)
    killed: bool = False  # once already


def _decoded(request: Request, answer: Answer) -> Decoded:
    return Decoded(request, answer.result, answer.seconds)


def default_workers(*, gpu: bool = False) -> int:
    """One decoding process per core that this process may use, 1 to 16; one less where the encoder needs a core too.

    Cores are those of the affinity mask, and of a container's CPU quota (cgroup v2).
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    cores = min(cores, _quota() or cores)
    return max(1, min(_MOST_WORKERS, cores if gpu else cores - 1))


def _quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole cores that this process's control group and those above it may use; None without a quota."""
    quotas = []
    try:
        own = next(line[3:] for line in groups.read_text().splitlines() if line.startswith("0::"))
        for group in (Path(own), *Path(own).parents):
            file = root / group.relative_to("/") / "cpu.max"
            if file.is_file():
                quota, period = file.read_text().split()
                if quota != "max":
                    quotas.append(int(quota) // int(period))
    except (OSError, ValueError, StopIteration):
        return None
    return max(1, min(quotas)) if quotas else None
