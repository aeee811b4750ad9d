"""SHA-256 of many media at once, in threads. Knows files; remembers nothing."""

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

from epalm.fingerprint import digest_file
from epalm.media import MediaFile, Status

_FRESH = 2_000_000_000  # ns: a file changed this shortly before it was hashed may change again unnoticed
_MOST_THREADS = 8
_HAND_OVER = 0.25  # seconds after which a thread hands over what it has
_TOGETHER = 64  # results that are handed over together: small files would be slower one by one


class Hashed(NamedTuple):
    """The medium at `position` of those asked for: its digest, None where it cannot be read.

    `status` is the state of the file whose digest this is; None where it cannot be told: the file changed meanwhile,
    or so shortly before that it may do so again within one tick of its clock.
    """

    position: int
    digest: str | None
    status: Status | None


class _StoppedError(Exception):
    """Nobody waits for the digests any more."""


def hash_media(media: Sequence[MediaFile]) -> Generator[list[Hashed], None, None]:
    """Each medium's digest once, in no order, as they become ready; closing the iterator ends the reading."""
    results: SimpleQueue[list[Hashed] | None] = SimpleQueue()
    positions = iter(range(len(media)))  # next() on it is one step: threads share it without a lock
    stopped = threading.Event()

    def pulse() -> None:
        if stopped.is_set():
            raise _StoppedError

    def work() -> None:
        try:
            done: list[Hashed] = []
            handed_over = time.monotonic()
            for position in positions:
                done.append(_hash(position, media[position], pulse))
                if len(done) == _TOGETHER or time.monotonic() - handed_over > _HAND_OVER:
                    results.put(done)
                    done, handed_over = [], time.monotonic()
            results.put(done)
        finally:
            results.put(None)

    threads = min(_MOST_THREADS, os.cpu_count() or 1, max(1, len(media)))
    with ThreadPoolExecutor(threads, "hash") as pool:
        try:
            running = [pool.submit(work) for _ in range(threads)]
            for _ in range(threads):
                while (done := results.get()) is not None:
                    yield done
            for thread in running:
                thread.result()
        finally:
            stopped.set()


def _hash(position: int, medium: MediaFile, pulse: Callable[[], None]) -> Hashed:
    before, began = medium.status(), time.time_ns()
    try:
        digest = digest_file(medium.path, medium.offset, medium.size, pulse=pulse)
    except OSError:
        return Hashed(position, None, None)
    settled = before is not None and began - before.mtime > _FRESH and medium.status() == before
    return Hashed(position, digest, before if settled else None)
