"""One decoding process as its parent sees it: start it, hand it jobs, tell how each ended, end it.

It is started anew rather than forked, and not through multiprocessing: that refuses to start children in daemonic
processes (Dask's workers are such), runs the main script again in each, and unpickles what they answer. While the
process decodes one medium the next already lies at it: between two it waits for no thread of this process.
"""

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from epalm.errors import EpalmError, MediaError
from epalm.extract.decoding.answers import Answer, GarbledError, plain, receive_answer
from epalm.extract.decoding.child import READY
from epalm.extract.inputs.augment import View
from epalm.media import MediaFile

_START_TIMEOUT = 120.0  # seconds for a new process to be ready
_STARTS = 3  # attempts, where a process is killed while it starts
_EXIT_TIMEOUT = 1.0  # seconds from a closed socket to the process's end
_KILL_TIMEOUT = 5.0  # seconds for a killed process to be gone
_STDERR = 1 << 16  # bytes of stderr that are looked at: what its pipe holds
_HINT = "try --workers 0, which decodes in this process"


class ClosedError(RuntimeError):
    """The pool is closed."""

    def __init__(self) -> None:
        super().__init__("the pool is closed")


class _KilledError(Exception):
    """The process was killed from outside: whether the file has to do with it cannot be told."""


@dataclass(slots=True)
class Job:
    """One medium to decode; `done` gets the answer, or what kept it from being asked for."""

    medium: MediaFile
    views: Sequence[View]
    left: threading.Event  # set when nobody waits for the answer any more
    done: "Future[Answer]" = field(default_factory=Future)
    killed: bool = False  # once already


Jobs = queue.SimpleQueue[Job | None]  # None: no more


class DecodingProcess:
    """A process that is replaced when a medium has ended it. Used by one thread (which the kernel ends it with)."""

    def __init__(self, jobs: Jobs, sharing: int, orders: bytes, timeout: float) -> None:
        """`sharing` processes take from `jobs`; `orders` make one ready; `timeout` in seconds for one medium."""
        self._jobs, self._sharing, self._orders, self._timeout = jobs, sharing, orders, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._sent: deque[Job] = deque()  # at the process, the first of them being done
        self._again: deque[Job] = deque()  # to be sent once more
        self._heard = ""  # on stderr, with the latest answer
        self._lock, self._closed = threading.Lock(), False

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def run(self) -> None:
        """Until there are no more jobs."""
        try:
            with contextlib.suppress(EpalmError, ClosedError):  # the first job tries again, and tells
                self._ready()
            while self._hand_over():
                if self._sent:
                    self._take_answer()
        finally:
            self._end()
            for job in (*self._sent, *self._again):
                job.done.set_exception(ClosedError())

    def close(self) -> None:
        """End the process at once, and start no other; from any thread."""
        with self._lock:
            self._closed = True
            if self._process:
                self._process.kill()

    def _hand_over(self) -> bool:
        """Give the process a job, or two where there is plenty; false when there are no more."""
        while len(self._sent) < (2 if self._plenty() else 1):
            try:
                job = self._again.popleft() if self._again else self._jobs.get(block=not self._sent)
            except queue.Empty:
                break
            if job is None:
                return False
            if job.left.is_set():
                continue
            try:
                if not self._sent:  # else one that has ended over the job before is asked about that first
                    self._ready()
                self._pipe.settimeout(_START_TIMEOUT)
                self._pipe.sendall(pickle.dumps((job.medium, job.views)))
                self._sent.append(job)
            except (BrokenPipeError, ConnectionResetError):  # it has ended before it saw the job
                self._again.appendleft(job)
                if self._sent:
                    break
                self._end()
            except Exception as error:  # the one who waits for the answer is told
                job.done.set_exception(error)
        return True

    def _plenty(self) -> bool:
        """Whether others have work even if this one takes two jobs."""
        return bool(self._again) or self._jobs.qsize() >= self._sharing

    def _take_answer(self) -> None:
        """The answer to the first job at the process; where there is none, the process is ended and the file blamed."""
        job, started, fault = self._sent.popleft(), time.perf_counter(), None
        try:
            answer = receive_answer(self._pipe, self._timeout)
            self._heard = self._hear()  # so that the pipe has room for what is said of the next file
            job.done.set_result(answer)
            return
        except TimeoutError:
            fault = MediaError(
                f"decoding took longer than {self._timeout:g} s", hint="shorten the file, or raise --timeout"
            )
        except GarbledError as error:
            fault = MediaError(f"the decoder answered with nonsense: {error}", hint="please report it, with the file")
        except (EOFError, OSError):
            with contextlib.suppress(_KilledError):
                ended, words = self._how_it_ended()
                hint = "convert the file with another tool"
                fault = MediaError(
                    f"the decoder crashed on this file ({ended})", hint=f"{hint}; it said: {words}" if words else hint
                )
        if fault is None and job.killed:  # when memory runs out, the kernel may kill any: only the second time is it
            hint = "if memory ran out, try again with fewer --workers"  # the file's doing
            fault = MediaError("the decoder was killed on this file, twice", hint=hint)
        if fault is None:
            job.killed = True
            self._again.append(job)
        else:
            job.done.set_result(Answer(fault, time.perf_counter() - started))
        self._end()
        self._again.extend(self._sent)
        self._sent.clear()

    def _ready(self) -> None:
        """Have a process that runs and knows its reader. Raises EpalmError, ClosedError."""
        if self._process and self._process.poll() is None:
            return
        for _ in range(_STARTS):
            self._end()
            self._start()
            with contextlib.suppress(_KilledError):
                try:
                    self._pipe.settimeout(_START_TIMEOUT)
                    self._pipe.sendall(self._orders)
                    if self._pipe.recv(1) == READY:
                        return
                    ended, words = self._how_it_ended()
                except TimeoutError:
                    ended, words = f"not ready after {_START_TIMEOUT:g} s", ""
                except OSError:
                    ended, words = self._how_it_ended()
                self._end()
                raise EpalmError(f"a decoding process did not start: {ended}{words and ': ' + words}", hint=_HINT)
        raise EpalmError(
            f"a decoding process was killed {_STARTS} times while it started",
            hint="where memory has run out, use fewer --workers",
        )

    def _start(self) -> None:
        self._pipe, theirs = socket.socketpair()
        # As far as the system lets: the process need not wait for its answers to be taken.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._stderr, writes = os.pipe()
        # Neither end ever waits: what a decoder says beyond the pipe's capacity is dropped.
        os.set_blocking(self._stderr, False)
        os.set_blocking(writes, False)
        try:
            with self._lock:  # so that none is started behind the back of `close`
                if self._closed:
                    raise ClosedError
                self._process = subprocess.Popen(
                    _python_command(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=writes,
                    pass_fds=[theirs.fileno()],
                    env=os.environ | {"OMP_NUM_THREADS": "1"},  # several of these run side by side
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                )
        except (OSError, ClosedError) as error:
            self._pipe.close()
            os.close(self._stderr)
            if isinstance(error, OSError):
                raise EpalmError(f"a decoding process cannot be started: {error.strerror}", hint=_HINT) from error
            raise
        finally:
            theirs.close()
            os.close(writes)

    def _end(self) -> None:
        """End the process, if there is one, and let go of it."""
        if not self._process:
            return
        self._process.kill()
        # One that hangs in the kernel (a dead network drive) cannot be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_TIMEOUT)
        self._process = None
        self._pipe.close()
        os.close(self._stderr)

    def _how_it_ended(self) -> tuple[str, str]:
        """In words, and what it said last: the place of a crash, or the last line on stderr. Raises _KilledError."""
        assert self._process
        try:
            code = self._process.wait(_EXIT_TIMEOUT)
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = "it hung up"
        if ended == "SIGKILL":
            raise _KilledError
        last = self._hear()
        # The place may have been heard with the answer before: the process does not wait for that to be taken.
        _, fatal, trace = (self._heard + last).partition("(most recent call first):\n")
        lines = [line.strip() for line in (trace if fatal else last).splitlines() if line.strip()]
        return ended, plain(lines[0 if fatal else -1]) if lines else ""

    def _hear(self) -> str:
        try:
            return os.read(self._stderr, _STDERR).decode(errors="replace")
        except BlockingIOError:
            return ""


def _python_command(descriptor: int) -> list[str]:
    """The command line of a Python that finds what this process finds, and serves the socket."""
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]  # noqa: PTH109
    code = f"import sys; sys.path[:] = {path!a}; from epalm.extract.decoding.child import main; main({descriptor})"
    return [sys.executable, "-c", code]
