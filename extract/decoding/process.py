"""One decoding process as its parent sees it: start it, hand it jobs, take answers, tell how each ended, end it.

It is started anew rather than forked, and not through multiprocessing: that refuses to start children in daemonic
processes (Dask's workers are such), runs the main script again in each, and unpickles what they answer.

An answer is a header of fixed length, texts, an array's raw bytes. The receiving end believes nothing: types and sizes
are checked before memory is taken, so a decoder that a file has taken over cannot run code here.
"""

import contextlib
import math
import os
import pickle
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from epalm.errors import EpalmError, MediaError
from epalm.extract.inputs.augment import View
from epalm.extract.media.limits import MediaWarning
from epalm.media import MediaFile

CLOSED = "the pool is closed"
READY = b"+"  # sent once, when a process can decode
MAX_BYTES = 1 << 30  # of one array
HEADER = struct.Struct("<IBB8Q")  # bytes of texts, type (0: no array), axes, lengths of these
_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.uint8), np.dtype(np.float32))
_MAX_AXES = 8
_MAX_TEXT = 500  # characters of a message: it becomes one ledger line
_START_TIMEOUT = 120.0  # seconds for a new process to be ready
_EXIT_TIMEOUT = 1.0  # seconds from a closed socket to the process's end
_KILL_TIMEOUT = 5.0  # seconds for a killed process to be gone
_STDERR = 1 << 16  # bytes of stderr that are looked at: what its pipe holds
_SERVE = "import sys; sys.path[:] = {path!a}; from epalm.extract.decoding.workers import serve; serve({descriptor})"
_HINT = "try fewer --workers; with --workers 0 this process decodes"


class Answer(NamedTuple):
    """One medium's array, or why there is none. A `warning` is about an array."""

    result: np.ndarray | MediaError
    warning: MediaWarning | None = None


class GarbledError(Exception):
    """What came is not an answer."""


class Job(NamedTuple):
    """A request, and what will hold its answer, or what kept it from being asked for."""

    request: tuple[MediaFile, tuple[View, ...]]
    answer: "Future[Answer]"
    killed: bool = False  # a process was killed from outside over it


Jobs = queue.SimpleQueue[Job | None]  # None: no more


class DecodingProcess(threading.Thread):
    """The thread of one process, which is replaced when a medium has ended it; the kernel ends it with the thread."""

    def __init__(self, jobs: Jobs, sharing: int, orders: bytes, timeout: float) -> None:
        """`sharing` threads take from `jobs`; `orders` make a process ready; `timeout` in seconds for one medium."""
        super().__init__(name="decode-", daemon=True)
        self._jobs, self._sharing, self._orders, self._timeout = jobs, sharing, orders, timeout
        self.process: subprocess.Popen[bytes] | None = None
        self._sent: deque[Job] = deque()  # at the process, the first of them being done
        self._stderr = ""  # on stderr, with the latest answer
        self._closed = False

    def run(self) -> None:
        """Until there are no more jobs."""
        try:
            with contextlib.suppress(EpalmError, RuntimeError):  # the first job tries again, and tells
                self._have_process()
            while self._send():
                if self._sent:
                    self._take_answer()
        finally:
            self._end()
            for job in self._sent:
                job.answer.set_exception(RuntimeError(CLOSED))

    def close(self) -> None:
        """End the process at once, and start no other; from any thread."""
        self._closed = True
        if process := self.process:
            process.kill()

    def _send(self) -> bool:
        """Give the process a job, and one ahead where there are enough for all; false when there are no more.

        With one ahead it need not wait for this thread, which waits for a slice of time where all cores are busy.
        """
        while len(self._sent) < (2 if self._jobs.qsize() >= self._sharing else 1):
            try:
                job = self._jobs.get(block=not self._sent)
            except queue.Empty:
                break
            if job is None:
                return False
            if not job.answer.running() and not job.answer.set_running_or_notify_cancel():
                continue
            try:
                if not self._sent:
                    self._have_process()
                with contextlib.suppress(OSError):  # it has ended: that is seen when the answer is awaited
                    self._pipe.sendall(pickle.dumps(job.request))
                self._sent.append(job)
            except Exception as error:  # the one who waits for the answer is told
                job.answer.set_exception(error)
        return True

    def _take_answer(self) -> None:
        """The answer to the first job at the process; where there is none, the process is ended and the file blamed."""
        job, fault = self._sent.popleft(), None
        try:
            answer = receive_answer(self._pipe, self._timeout)
            self._stderr = self._read_stderr()  # so that the pipe has room for what is said of the next file
            job.answer.set_result(answer)
            return
        except TimeoutError:
            hint = "shorten the file, or raise --timeout"
            fault = MediaError(f"decoding took longer than {self._timeout:g} s", hint=hint)
        except GarbledError as error:
            fault = MediaError(f"the decoder answered with nonsense: {error}", hint="please report it, with the file")
        except (EOFError, OSError):
            ended, words = self._how_it_ended()
            if ended != "SIGKILL":
                hint = f"convert the file with another tool{words and f'; it said: {words}'}"
                fault = MediaError(f"the decoder crashed on this file ({ended})", hint=hint)
            elif job.killed:  # when memory runs out, the kernel may kill any: it is the file's doing the second time
                hint = "if memory ran out, try again with fewer --workers"
                fault = MediaError("the decoder was killed on this file, twice", hint=hint)
        self._end()
        if fault:
            job.answer.set_result(Answer(fault))
        else:
            self._jobs.put(job._replace(killed=True))
        while self._sent:
            self._jobs.put(self._sent.popleft())

    def _have_process(self) -> None:
        """Have a process that runs and knows its reader. Raises EpalmError; RuntimeError: the pool is closed."""
        if self.process and self.process.poll() is None:
            return
        self._end()
        self._pipe, theirs = socket.socketpair()
        # As far as the system lets: the process need not wait for its answers to be taken.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        path = [os.getcwd() if entry == "" else entry for entry in sys.path]  # noqa: PTH109
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _SERVE.format(path=path, descriptor=theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    pass_fds=[theirs.fileno()],
                    env=os.environ | {"OMP_NUM_THREADS": "1"},  # several of these run side by side
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                )
        except OSError as error:
            self._pipe.close()
            raise EpalmError(f"a decoding process cannot be started: {error.strerror}", hint=_HINT) from error
        if self._closed:  # as `close` may not have seen this process
            self._end()
            raise RuntimeError(CLOSED)
        with contextlib.suppress(OSError):
            self._pipe.settimeout(_START_TIMEOUT)
            self._pipe.sendall(self._orders)
            if self._pipe.recv(1) == READY:
                return
        ended, words = self._how_it_ended()
        self._end()
        raise EpalmError(f"a decoding process did not start: {ended}{words and ': ' + words}", hint=_HINT)

    def _end(self) -> None:
        """End the process, if there is one, and let go of it."""
        if not self.process or not self.process.stderr:
            return
        self.process.kill()
        # One that hangs in the kernel (a dead network drive) cannot be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_KILL_TIMEOUT)
        self.process.stderr.close()
        self._pipe.close()
        self.process = None

    def _how_it_ended(self) -> tuple[str, str]:
        """In words, and what it said last: the place of a crash, or the last line on stderr."""
        assert self.process
        try:
            code = self.process.wait(_EXIT_TIMEOUT)
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = "it does not answer"
        last = self._read_stderr()
        # The place may have been heard with the answer before: the process does not wait for that to be taken.
        _, fatal, trace = (self._stderr + last).partition("(most recent call first):\n")
        lines = [line.strip() for line in (trace if fatal else last).splitlines() if line.strip()]
        return ended, plain(lines[0 if fatal else -1]) if lines else ""

    def _read_stderr(self) -> str:
        assert self.process and self.process.stderr
        os.set_blocking(self.process.stderr.fileno(), False)
        return (self.process.stderr.read(_STDERR) or b"").decode(errors="replace")


def sendable(array: np.ndarray) -> np.ndarray:
    """The array as `send_answer` takes it. Raises TypeError: not uint8 or float32; MediaError: above `MAX_BYTES`."""
    if not isinstance(array, np.ndarray) or array.dtype not in _DTYPES:
        raise TypeError(f"{getattr(array, 'dtype', type(array).__name__)}, where uint8 or float32 is expected")
    if array.nbytes > MAX_BYTES:
        hint = "ask for fewer views or frames of it at a time"
        raise MediaError(f"it decodes to {array.nbytes / 1e9:.1f} GB", hint=hint)
    return np.ascontiguousarray(array)


def send_answer(pipe: socket.socket, answer: Answer) -> None:
    """Raises OSError when nobody listens any more."""
    result, about = answer.result, answer.warning
    kind, shape, body = 0, tuple[int, ...](), memoryview(b"")
    if isinstance(result, MediaError):
        about = MediaWarning(result.message, result.hint)
    else:
        kind, shape, body = 1 + _DTYPES.index(result.dtype), result.shape, _bytes(result)
    lines = [plain(text) for text in (about.message, about.hint) if text is not None] if about else []
    texts = "\n".join(lines).encode()
    lengths = [*shape, *[0] * (_MAX_AXES - len(shape))]
    header = HEADER.pack(len(texts), kind, len(shape), *lengths)
    pipe.sendall(b"".join((header, texts, body)))  # in one go: the other end wakes up once


def receive_answer(pipe: socket.socket, timeout: float) -> Answer:
    """The next answer, if it comes within `timeout` seconds.

    Raises TimeoutError, EOFError, OSError: none came; the other end has closed; GarbledError: something else came.
    """
    header = bytearray(HEADER.size)
    deadline = time.monotonic() + timeout
    _fill(pipe, memoryview(header), deadline)
    size, kind, axes, *lengths = HEADER.unpack(header)
    if size > 10 * _MAX_TEXT or kind > len(_DTYPES) or axes > _MAX_AXES:
        raise GarbledError("an impossible header")
    shape, dtype = tuple(lengths[:axes]), _DTYPES[kind - 1]
    if math.prod(length or 1 for length in shape) * dtype.itemsize > MAX_BYTES:
        raise GarbledError("an array of impossible size")
    texts = bytearray(size)
    _fill(pipe, memoryview(texts), deadline)
    message, *hints = map(plain, texts.decode(errors="replace").split("\n", 1))
    hint = hints[0] if hints else None
    if not kind:
        return Answer(MediaError(message, hint=hint))
    array = np.empty(shape, dtype)
    _fill(pipe, _bytes(array), deadline)
    return Answer(array, MediaWarning(message, hint) if size else None)


def plain(text: str) -> str:
    """One line of at most 500 characters, without control characters: it goes to terminals and ledgers."""
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_TEXT])


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(pipe: socket.socket, left: memoryview, deadline: float) -> None:
    """Receive into place: nothing is copied once more, and the interpreter's lock is free while waiting."""
    while left:
        pipe.settimeout(max(deadline - time.monotonic(), 1e-3))
        count = pipe.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
