"""Decoding in processes of their own, while the encoder computes in this one.

A decoder that crashes or hangs on a hostile file takes only its process with it: that file becomes a
MediaError, the process is replaced, the others go on. Results come in the order of the files.

What a process sends back is JSON and raw array bytes, never a pickle: a decoder that a file has taken over
cannot run code here.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import numpy as np

from epalm.errors import EpalmError, MediaError
from epalm.extract.preprocess import Input
from epalm.media import MediaFile

DEFAULT_TIMEOUT = 120.0  # seconds for one file
_START_TIMEOUT = 120.0  # seconds for a new process to be ready
_DTYPES = {"uint8": np.uint8, "float32": np.float32}


@dataclass(frozen=True)
class Decoded:
    """One file's input, or why there is none; `seconds` is what decoding it took."""

    path: Path
    result: np.ndarray | MediaError
    seconds: float


class DecodePool:
    """`workers` processes that decode; with 0, files are decoded in this process, without a time limit."""

    def __init__(self, read: Input, workers: int, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._read, self._timeout = read, timeout
        self._count = workers
        self._threads = ThreadPoolExecutor(workers, "decode") if workers else None
        self._mine = threading.local()  # each thread drives one process
        self._running: set[_Worker] = set()
        self._stopping = False

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop at once: no file that is being decoded is waited for."""
        self._stopping = True
        for worker in list(self._running):
            worker.stop()
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def decode(self, paths: Iterable[Path], *, ahead: int) -> Iterator[Decoded]:
        """Each file decoded, in order; at most `ahead` results are held while the caller is busy."""
        if self._threads is None:
            yield from map(self._decode_here, paths)
            return
        waiting: deque[Future[Decoded]] = deque()
        for path in paths:
            waiting.append(self._threads.submit(self._decode_there, path))
            if len(waiting) >= max(ahead, self._count):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _decode_here(self, path: Path) -> Decoded:
        started = time.perf_counter()
        try:
            result: np.ndarray | MediaError = self._read(MediaFile(path))
        except MediaError as error:
            result = error
        return Decoded(path, result, time.perf_counter() - started)

    def _decode_there(self, path: Path) -> Decoded:
        started = time.perf_counter()
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is None or not worker.alive:
            worker = self._mine.worker = _Worker(self._read)
            self._running.add(worker)
            if self._stopping:
                worker.stop()
        result = worker.decode(path, self._timeout)
        if not worker.alive:
            self._running.discard(worker)
        return Decoded(path, result, time.perf_counter() - started)


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, read: Input) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, read), daemon=True)
        self._process.start()
        theirs.close()  # so that the process's end is closed when it dies, and we notice
        self._ready = False
        self.alive = True

    def decode(self, path: Path, timeout: float) -> np.ndarray | MediaError:
        """The process's answer; when there is none, the process is ended and the file blamed."""
        try:
            if not self._ready:
                if not self._pipe.poll(_START_TIMEOUT):
                    raise EpalmError("a decoding process did not start", hint="try --workers 0")
                self._pipe.recv_bytes()
                self._ready = True
            self._pipe.send_bytes(os.fsencode(path))
            if not self._pipe.poll(timeout):
                self.stop()
                return MediaError(
                    f"decoding took longer than {timeout:g} s", hint="shorten the file, or raise --timeout"
                )
            return _receive(self._pipe)
        except (EOFError, OSError) as error:
            self.stop()
            if not self._ready:
                raise EpalmError("a decoding process ended at its start", hint="try --workers 0") from error
            code = self._process.exitcode
            why = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            return MediaError(f"the decoder crashed on this file ({why})", hint="convert it with another tool")

    def stop(self) -> None:
        """End the process; may be called from another thread, and more than once."""
        self.alive = False
        self._process.kill()
        self._process.join()


def _receive(pipe: Connection) -> np.ndarray | MediaError:
    header = json.loads(pipe.recv_bytes())
    if "error" in header:
        return MediaError(header["error"], hint=header["hint"])
    array = np.empty(header["shape"], _DTYPES[header["dtype"]])
    pipe.recv_bytes_into(array.data.cast("B"))
    return array


def _serve(pipe: Connection, read: Input) -> None:
    """The process's life: a path in, an array or an error out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    os.environ["OMP_NUM_THREADS"] = "1"  # several of these run side by side
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send_bytes(b"ready")
        while True:
            path = Path(os.fsdecode(pipe.recv_bytes()))
            try:
                array = np.ascontiguousarray(read(MediaFile(path)))
            except MediaError as error:
                pipe.send_bytes(json.dumps({"error": error.message, "hint": error.hint}).encode())
            else:
                pipe.send_bytes(json.dumps({"shape": array.shape, "dtype": array.dtype.name}).encode())
                pipe.send_bytes(array.data.cast("B"))
