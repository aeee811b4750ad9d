"""A reader that does what each medium's text says, and such media. Decoding processes import it, without pytest."""

import contextlib
import ctypes
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epalm.errors import MediaError
from epalm.extract.decoding.process import HEADER, Answer
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.media.limits import warn_about
from epalm.media import MediaFile

Views = Sequence[View]


@dataclass(frozen=True)
class Scripted:
    """Its media are texts: the name of one of the functions below, and its arguments."""

    def __call__(self, medium: MediaFile, views: Views) -> np.ndarray:
        with medium.open() as file:
            name, *words = file.read().decode().split(maxsplit=1)
        act: Callable[..., np.ndarray] = globals()[name]
        return act(views, *words)


def value(views: Views, number: str) -> np.ndarray:
    """(V, 2, 2, 3) uint8: the number, plus that of the view."""
    return np.stack([np.full((2, 2, 3), int(number) + view.number, np.uint8) for view in views])


def zeros(views: Views, words: str) -> np.ndarray:
    dtype, *shape = words.split()
    return np.zeros([int(length) for length in shape], dtype)


def drawn(views: Views) -> np.ndarray:
    """(V, 1) float32: the first random number of each view."""
    return np.array([[view.rng("pixels").random()] for view in views], np.float32)


def told(views: Views, expression: str) -> np.ndarray:
    """Raises MediaError with the value of a Python expression."""
    raise MediaError(str(eval(expression)))


def warns(views: Views, words: str) -> np.ndarray:
    """Warns twice: with a message and a hint, in JSON, and with the message "again"."""
    message, hint = json.loads(words)
    warn_about(message, hint)
    warn_about(f"{message} again", hint)
    return value(views, "0")


def unreadable(views: Views) -> np.ndarray:
    raise MediaError("these bytes are no medium", hint="bring others")


def surprised(views: Views) -> np.ndarray:
    raise KeyError("moov\x1b[2J\natom")


def exits(views: Views) -> np.ndarray:
    os._exit(3)


def leaves(views: Views) -> np.ndarray:
    sys.exit(4)


def segfaults(views: Views) -> np.ndarray:
    ctypes.string_at(0)
    return value(views, "0")


def aborts(views: Views) -> np.ndarray:
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    ctypes.CDLL(None).abort()
    return value(views, "0")


def killed(views: Views, marker: str) -> np.ndarray:
    """Killed as by the kernel that runs out of memory; each time until the marker has as many lines as it says."""
    times, path = marker.split()
    with Path(path).open("a+") as file:
        file.seek(0)
        if len(file.readlines()) < int(times):
            file.write("killed\n")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    return value(views, "9")


def hangs(views: Views, marker: str | None = None) -> np.ndarray:
    if marker:
        Path(marker).write_text(str(os.getpid()))
    time.sleep(3600)
    return value(views, "0")


def meets(views: Views, markers: str) -> np.ndarray:
    """Leaves the first marker, and waits for the other."""
    mine, other = markers.split()
    Path(mine).touch()
    wait_for(Path(other).exists)
    return value(views, "8")


def hungry(views: Views) -> np.ndarray:
    """Takes memory piece by piece until there is none."""
    pieces = []
    while True:
        pieces.append(np.ones(1 << 20))


def floods(views: Views, number: str) -> np.ndarray:
    """Megabytes on both outputs."""
    for _ in range(64):
        os.write(1, b"x" * (1 << 16))
        with contextlib.suppress(BlockingIOError):
            os.write(2, b"y" * (1 << 16))
    return value(views, number)


def replies(views: Views, text: str) -> np.ndarray:
    """Writes a text of its own to the pipe, followed by spaces and noise."""
    (pipe,) = _sockets()
    os.write(pipe, text.encode().ljust(256) + b"\0\xff" * 1000)
    return value(views, "0")


def claims(views: Views, words: str) -> np.ndarray:
    """Writes an answer's header of its own to the pipe, followed by noise: texts, type, axes, lengths."""
    (pipe,) = _sockets()
    numbers = [int(word) for word in words.split()]
    header = HEADER.pack(*numbers, *[0] * (11 - len(numbers)))
    os.write(pipe, header + b"\0\xff" * 1000)
    return value(views, "0")


def pours(views: Views) -> np.ndarray:
    (pipe,) = _sockets()
    while True:
        os.write(pipe, b"\xff" * (1 << 16))


def hangs_up(views: Views) -> np.ndarray:
    for pipe in _sockets():
        os.close(pipe)
    return hangs(views)


def interrupted(views: Views, number: str) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGINT)
    return value(views, number)


def _sockets() -> list[int]:
    open_now = []
    for descriptor in map(int, descriptors()):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                open_now.append(descriptor)
    return open_now


class Media:
    """Makes media for `Scripted`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __call__(self, *texts: str, views: tuple[View, ...] = (VIEW_0,)) -> list[Request]:
        """Requests for these texts, each in a file of its own."""
        requests = []
        for text in texts:
            self.count += 1
            path = self.folder / f"{self.count}.txt"
            path.write_text(text)
            requests.append(Request(MediaFile(path), views))
        return requests


def number_of(done: Answer) -> int:
    """The number of a `value`."""
    assert isinstance(done.result, np.ndarray), done.result
    return int(done.result.flat[0])


def fault_of(done: Answer) -> MediaError:
    """Of a medium that gave none."""
    assert isinstance(done.result, MediaError), done.result
    return done.result


def pids_of(pool: DecodePool) -> list[int]:
    """Of its processes, once all have started: on a busy machine one may begin after another has answered."""
    wait_for(lambda: all(process.process for process in pool._processes))
    return [process.process.pid for process in pool._processes if process.process]


def descriptors() -> list[str]:
    """What this process has open."""
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; a minute is too long."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def decode_and_say(texts: list[str], folder: str) -> None:
    """Decode with two processes, and leave the numbers in `answer.json`; to be run in a process of its own."""
    with DecodePool(Scripted(), 2) as pool:
        numbers = [number_of(done) for done in pool.decode(Media(Path(folder))(*texts), ahead=4)]
    (Path(folder) / "answer.json").write_text(json.dumps(numbers))
