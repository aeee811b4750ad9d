"""Decoding in several processes of this machine, which take chunk after chunk from this one.

A process that dies costs its chunk, which another one gets. Knows processes; knows nothing of models.
"""

import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from epalm.children import python_command
from epalm.console import say, warn
from epalm.cores import usable_cores
from epalm.errors import EpalmError
from epalm.evaluate.decoding.decoding_child import Bug
from epalm.evaluate.decoding.spread import Chunk, Job
from epalm.samples import Prediction

_MOST_TRIES = 3  # of a chunk whose processes die
_END = 5.0  # seconds for a process that is killed, or has closed its pipe, to be gone


@dataclass(frozen=True)
class DecodingProcesses:
    """So many processes; where there are GPUs each takes one, on CPUs they share the cores."""

    count: int

    def __call__(self, job: Job, chunks: Iterator[Chunk]) -> Generator[list[Prediction]]:
        """See `Engine`.

        Raises:
            EpalmError: what a process cannot do, or three processes have died over one chunk.
        """
        say(f"decoding: {self.count} processes")
        crew = _Crew(job, self.count)
        try:
            yield from crew.go(_Chunks(chunks))
        finally:
            crew.close()


@dataclass(frozen=True)
class _Attempt:
    chunk: Chunk
    number: int = 1


class _Chunks:
    """What is to be done: what others have died over first, then the rest, of which one is held ready."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._rest = chunks
        self._ready: deque[_Attempt] = deque()

    def __bool__(self) -> bool:
        if not self._ready:
            self._ready.extend(_Attempt(chunk) for chunk in [next(self._rest, None)] if chunk)
        return bool(self._ready)

    def take(self) -> _Attempt:
        """The next one; there must be one."""
        return self._ready.popleft()

    def again(self, attempt: _Attempt) -> None:
        """One that was taken."""
        self._ready.appendleft(attempt)


class _Process:
    """One process, its pipe, and the attempt that it was started for or is at work on."""

    def __init__(self, number: int, job: Job, threads: int, attempt: _Attempt) -> None:
        """Start it; it asks for the chunk when the run is loaded. Raises EpalmError."""
        self.number = number
        self.attempt: _Attempt | None = attempt
        self.ready = False
        self.pipe, theirs = Pipe()
        try:
            self._child = start_child(theirs, threads)
        except OSError as error:
            self.pipe.close()
            raise EpalmError(
                f"a decoding process cannot be started: {error.strerror}", hint="give fewer --processes"
            ) from error
        finally:
            theirs.close()
        self._send((job, threads))

    def hand_over(self, attempt: _Attempt) -> None:
        """Give it a chunk; it has loaded the run."""
        self.ready, self.attempt = True, attempt
        self._send(attempt.chunk)

    def kill(self) -> None:
        """Have it end at once."""
        self._child.kill()

    def close(self) -> str:
        """Let go of one that has ended or is about to; how it ended, in words."""
        self.pipe.close()
        try:
            code = self._child.wait(_END)
        except subprocess.TimeoutExpired:  # it hangs in the kernel
            self.kill()
            return "it hung up"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _send(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who waits for its answer will see
            self.pipe.send(message)


class _Crew:
    """The processes of one scoring."""

    def __init__(self, job: Job, count: int) -> None:
        self._job, self._count = job, count
        self._threads = max(1, min(torch.get_num_threads(), usable_cores()) // count)
        self._gpus = torch.cuda.device_count() if job.device in ("auto", "cuda") else 0
        self._processes: list[_Process] = []
        self._deaths = 0

    def go(self, chunks: _Chunks) -> Iterator[list[Prediction]]:
        """Have all chunks decoded."""
        while self._employ(chunks):
            by_pipe = {process.pipe: process for process in self._processes}
            for pipe in wait(list(by_pipe)):
                yield from self._listen(by_pipe[pipe], chunks)  # type: ignore[index]

    def close(self) -> None:
        """End every process at once, whatever it does."""
        for process in self._processes:
            process.kill()
        while self._processes:
            self._processes.pop().close()

    def _employ(self, chunks: _Chunks) -> bool:
        """Give everyone who is free a chunk, and start who is missing; whether somebody is at work."""
        for process in self._processes:
            if process.ready and process.attempt is None and chunks:
                process.hand_over(chunks.take())
        while chunks and len(self._processes) < self._count:
            number = min(set(range(self._count)) - {process.number for process in self._processes})
            job = replace(self._job, device=f"cuda:{number % self._gpus}") if self._gpus else self._job
            self._processes.append(_Process(number, job, self._threads, chunks.take()))
        return any(process.attempt for process in self._processes)

    def _listen(self, process: _Process, chunks: _Chunks) -> Iterator[list[Prediction]]:
        try:
            answer = process.pipe.recv()
        except (EOFError, OSError):
            self._bury(process, chunks)
            return
        if isinstance(answer, EpalmError):
            raise answer
        if isinstance(answer, Bug):
            raise RuntimeError(f"a decoding process failed:\n{answer.trace}")
        if answer is None:
            assert process.attempt
            process.hand_over(process.attempt)
            return
        process.attempt = None
        yield answer

    def _bury(self, process: _Process, chunks: _Chunks) -> None:
        """Of one that has died, give the chunk to another. Raises EpalmError when too many have died over it."""
        self._processes.remove(process)
        how, attempt = process.close(), process.attempt
        self._deaths += 1
        told = f"a decoding process died ({how})"
        if attempt is None:
            warn(f"{told}, {self._deaths} so far; it had nothing to do")
        elif attempt.number < _MOST_TRIES:
            warn(f"{told}, {self._deaths} so far; its {len(attempt.chunk.samples):,} samples are given to another")
            chunks.again(replace(attempt, number=attempt.number + 1))
        elif process.ready:
            raise EpalmError(
                f"{told}, the last of {_MOST_TRIES} over the same samples, such as {attempt.chunk.samples[0].id}",
                hint="too little memory? give fewer --processes or a smaller --batch-size; what is decoded stays, and "
                "the same command goes on",
            )
        else:
            raise EpalmError(
                f"{told} before it had loaded the run, and others before it",
                hint="each loads the language model: free memory, or give fewer --processes",
            )


def start_child(pipe: "Connection[Any, Any]", threads: int) -> "subprocess.Popen[bytes]":
    """A process that serves the pipe, out of reach of the terminal's Ctrl-C. Raises OSError."""
    return subprocess.Popen(
        python_command("epalm.evaluate.decoding.decoding_child", pipe.fileno()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # results are printed there
        pass_fds=[pipe.fileno()],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        start_new_session=True,
    )
