"""The parent's hold on one decoding process: start it, ask it, tell how it ended, end it.

It is started anew rather than forked, and not through multiprocessing: that refuses to start children in daemonic
processes (Dask's workers are such) and runs the main script again in each. Knows one process; knows no queue.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from epalm.children import python_command
from epalm.errors import EpalmError, MediaError
from epalm.extract.decoding.decoder_child import READY
from epalm.extract.decoding.wire import Answer, GarbledError, plain, receive_answer
from epalm.extract.inputs.views import View
from epalm.media import MediaFile

_START_TIMEOUT = 120.0  # seconds for a new process to be ready
_EXIT_TIMEOUT = 1.0  # seconds from a closed socket to the process's end
_KILL_TIMEOUT = 5.0  # seconds for a killed process to be gone
_WORDS = 1 << 16  # bytes of stderr that are looked at: what its pipe holds
_HINT = "try --workers 0, which decodes in this process"


class KilledError(Exception):
    """The process was killed from outside: whether the file has to do with it cannot be told."""


class DecoderProcess:
    """One process, its socket, and a pipe with what it says on stderr. Used by one thread, save for `kill`."""

    def __init__(self) -> None:
        """Start it, without waiting for it. Raises EpalmError."""
        self._pipe, theirs = socket.socketpair()
        # As far as the system lets: the process need not wait for its answers to be taken.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._stderr, writes = os.pipe()
        # Neither end ever waits: what a decoder says beyond the pipe's capacity is dropped.
        os.set_blocking(self._stderr, False)
        os.set_blocking(writes, False)
        try:
            self._process = subprocess.Popen(
                python_command("epalm.extract.decoding.decoder_child", theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=writes,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # several of these run side by side
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        except OSError as error:
            self._pipe.close()
            os.close(self._stderr)
            raise EpalmError(f"a decoding process cannot be started: {error.strerror}", hint=_HINT) from error
        finally:
            theirs.close()
            os.close(writes)
        self.pid, self.open = self._process.pid, True
        self._heard = ""  # on stderr, with the latest answer

    def introduce(self, orders: bytes) -> None:
        """Hand over the reader, and wait until the process is ready.

        Raises:
            EpalmError: it did not come up.
            KilledError: it was killed on the way.
        """
        try:
            self._pipe.settimeout(_START_TIMEOUT)
            self._pipe.sendall(orders)
            if self._pipe.recv(1) == READY:
                return
            ended = self._end()
        except TimeoutError:
            ended = f"not ready after {_START_TIMEOUT:g} s"
        except OSError:
            ended = self._end()
        words = self._last_words()
        self.close()
        raise EpalmError(f"a decoding process did not start: {ended}{words and ': ' + words}", hint=_HINT)

    def send(self, medium: MediaFile, views: Sequence[View]) -> None:
        """Ask for a medium, which is decoded after those asked for before. Raises KilledError: it runs no more."""
        try:
            self._pipe.settimeout(_START_TIMEOUT)
            self._pipe.sendall(pickle.dumps((medium, views)))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise KilledError("it has ended") from error

    def receive(self, timeout: float) -> Answer:
        """The next answer; when there is none in `timeout` seconds, the process is ended and the file blamed.

        Raises:
            KilledError: it was killed from outside.
        """
        started = time.perf_counter()
        try:
            answer = receive_answer(self._pipe, timeout)
        except TimeoutError:
            fault = MediaError(f"decoding took longer than {timeout:g} s", hint="shorten the file, or raise --timeout")
        except GarbledError as error:
            fault = MediaError(f"the decoder answered with nonsense: {error}", hint="please report it, with the file")
        except (EOFError, OSError):
            ended = self._end()
            words = self._last_words()
            hint = "convert the file with another tool"
            fault = MediaError(
                f"the decoder crashed on this file ({ended})", hint=f"{hint}; it said: {words}" if words else hint
            )
        else:
            self._heard = self._hear()  # so that the pipe has room for what is said of the next file
            return answer
        self.close()
        return Answer(fault, time.perf_counter() - started)

    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self.open and self._process.poll() is None

    def kill(self) -> None:
        """Have the process end at once; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and let go of it; more than once is fine."""
        if not self.open:
            return
        self.open = False
        self.kill()
        # One that hangs in the kernel (a dead network drive) cannot be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_TIMEOUT)
        self._pipe.close()
        os.close(self._stderr)

    def _end(self) -> str:
        """How the process ended, in words. Raises KilledError."""
        try:
            code = self._process.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "it hung up"
        if code == -signal.SIGKILL:
            self.close()
            raise KilledError("SIGKILL")
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _last_words(self) -> str:
        """Of a process that has crashed: the place, or the last line on stderr."""
        last = self._hear()
        # The place may have been heard with the answer before: the process does not wait for that to be taken.
        _, fatal, trace = (self._heard + last).partition("(most recent call first):\n")
        lines = [line.strip() for line in (trace if fatal else last).splitlines() if line.strip()]
        return plain(lines[0 if fatal else -1]) if lines else ""

    def _hear(self) -> str:
        try:
            return os.read(self._stderr, _WORDS).decode(errors="replace")
        except BlockingIOError:
            return ""
