"""One thread's work: keep one decoding process running, hand it job after job, and tell how each ended.

While the process decodes one medium the next already lies at it: between two it waits for no thread of this process,
which on a busy machine would take as long as a small picture. Knows jobs and answers; knows no order of results.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from epalm.errors import EpalmError, MediaError
from epalm.extract.decoding.decoder_process import DecoderProcess, KilledError
from epalm.extract.decoding.wire import Answer
from epalm.extract.inputs.views import View
from epalm.media import MediaFile

_STARTS = 3  # attempts, where a process is killed while it starts
_AT_ONCE = 2  # jobs at a process: one that it does, one that waits


class ClosedError(RuntimeError):
    """The pool is closed."""

    def __init__(self) -> None:
        super().__init__("the pool is closed")


@dataclass(slots=True)
class Job:
    """One medium to decode; `done` gets the answer, or what kept it from being asked for."""

    medium: MediaFile
    views: Sequence[View]
    left: threading.Event  # set when nobody waits for the answer any more
    done: "Future[Answer]" = field(default_factory=Future)
    killed: bool = False  # once already


Jobs = queue.SimpleQueue[Job | None]  # None: no more


class Driver:
    """To be run by a thread of its own: the kernel ends a process with the thread that started it."""

    def __init__(self, jobs: Jobs, drivers: int, new_process: Callable[[], DecoderProcess], orders: bytes) -> None:
        """`drivers` share the jobs; `new_process` starts a process, or raises ClosedError; `orders` make it ready."""
        self._jobs, self._drivers, self._new_process, self._orders = jobs, drivers, new_process, orders
        self._process: DecoderProcess | None = None
        self._sent: deque[Job] = deque()  # at the process, the first of them being done
        self._mine: deque[Job] = deque()  # taken from the others' reach, and to be sent (again)

    def run(self, timeout: float) -> None:
        """Until there are no more jobs; `timeout` in seconds for one."""
        try:
            with contextlib.suppress(EpalmError, ClosedError):  # the first job tries again, and tells
                self._ready()
            while self._hand_over():
                self._take_answer(timeout)
        finally:
            if self._process:
                self._process.close()
            for job in (*self._sent, *self._mine):
                job.done.set_exception(ClosedError())

    def _hand_over(self) -> bool:
        """Give the process what it should have, at least one job; false when there are no more."""
        while len(self._sent) < (_AT_ONCE if self._plenty() else 1):
            try:
                job = self._mine.popleft() if self._mine else self._jobs.get(block=not self._sent)
            except queue.Empty:
                return True
            if job is None:
                return False
            if not job.left.is_set() and not self._send(job):
                return True
        return True

    def _plenty(self) -> bool:
        """Whether another driver has work even if this one takes two jobs."""
        return bool(self._mine) or self._jobs.qsize() >= self._drivers

    def _send(self, job: Job) -> bool:
        """Whether the next may be sent, too."""
        try:
            # One that has ended over a job before this one is asked about that first.
            process = self._process if self._sent and self._process else self._ready()
            process.send(job.medium, job.views)
        except KilledError:
            if self._sent:
                self._mine.appendleft(job)
                return False
            if self._process:
                self._process.close()
            self._try_again(job)
        except Exception as error:  # the one who waits for the answer is told
            job.done.set_exception(error)
        else:
            self._sent.append(job)
        return True

    def _take_answer(self, timeout: float) -> None:
        """The answer to the first job at the process. Holds none when it returns."""
        if not self._sent or not self._process:
            return
        job = self._sent.popleft()
        try:
            job.done.set_result(self._process.receive(timeout))
        except KilledError:
            self._try_again(job)
        except Exception as error:  # the one who waits for the answer is told
            job.done.set_exception(error)
            self._process.close()
        if not self._process.open:
            self._mine.extend(self._sent)
            self._sent.clear()

    def _try_again(self, job: Job) -> None:
        """When memory runs out, the kernel may kill any process: only the second time is it the file's doing."""
        if job.killed:
            message = "the decoder was killed on this file, twice"
            fault = MediaError(message, hint="if memory ran out, try again with fewer --workers")
            job.done.set_result(Answer(fault, 0.0))
        else:
            job.killed = True
            self._mine.append(job)

    def _ready(self) -> DecoderProcess:
        """The process; a new one where there is none that runs."""
        if self._process and self._process.alive():
            return self._process
        for _ in range(_STARTS):
            if self._process:
                self._process.close()
            self._process = self._new_process()
            with contextlib.suppress(KilledError):
                self._process.introduce(self._orders)
                return self._process
        raise EpalmError(
            f"a decoding process was killed {_STARTS} times while it started",
            hint="where memory has run out, use fewer --workers",
        )
