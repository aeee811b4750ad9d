"""What storage is to the cache: named byte objects below one root, on a local disk or in an object store.

Keys are POSIX paths. A name that begins with a dot is a draft or a lock: never listed among names. Knows bytes and
names only; every fault of the store becomes a CacheError.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from epalm.errors import CacheError

THREADS = 8  # for many small objects: a request to a store is mostly waiting


class MissingObjectError(CacheError):
    """There is no object of that name."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as a walk finds it: its key, size in bytes and when it was written (Unix time in seconds)."""

    key: str
    bytes: int
    modified: float


class Objects(Protocol):
    """A root and what lies below it. Writing is all or nothing, and survives a power cut when it returns."""

    where: str  # as a user would type it: a folder or a URL

    def below(self, folder: str) -> "Objects":
        """The same storage with a folder of it as its root."""

    def read(self, key: str) -> bytes:
        """An object's bytes. Raises MissingObjectError, or CacheError when it cannot be read."""

    def read_into(self, key: str, target: memoryview) -> int:
        """Fill `target` (bytes) with an object's beginning; how much there was. Raises as `read`."""
        data = self.read(key)[: len(target)]
        target[: len(data)] = data
        return len(data)

    def size(self, key: str) -> int | None:
        """An object's size in bytes, None when there is none. Raises CacheError when that cannot be told."""

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Put an object, replacing one of that name in one step."""

    def keep(self, key: str, data: bytes) -> None:
        """Put an object unless it is there with these very bytes."""
        if self.size(key) != len(data) or self.read(key) != data:
            self.write(key, data)

    def write_new(self, key: str, data: bytes) -> bool:
        """Put an object unless one of that name is there; whether this call was the first."""

    def append(self, key: str, line: bytes) -> None:
        """Add a line or some, line ends included, to a growing text; safe from several processes and machines."""

    def lines(self, key: str) -> bytes:
        """All of a growing text, empty when there is none; a kill may have left a torn line in it."""
        with suppress(MissingObjectError):
            return self.read(key)
        return b""

    def names(self, folder: str) -> list[str]:
        """Names directly below a folder, of objects and folders, sorted; none when there is no such folder."""

    def walk(self) -> Iterator[Stored]:
        """Every object at any depth, drafts included. Raises CacheError where a folder cannot be looked into."""

    def delete(self, key: str) -> None:
        """Take an object away, if it is there."""

    def delete_below(self, folder: str) -> None:
        """Take a folder with all that is in it away; a reader may see some of it gone, and the rest still there."""
        inside = self.below(folder)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(inside.delete, [one.key for one in inside.walk()]))

    def path(self, key: str) -> Path | None:
        """Where an object can be mapped into memory; None where it has to be read."""
        return None

    def free_bytes(self) -> int | None:
        """What still fits; None where there is no known limit."""
        return None

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Keep others out of what the key stands for, where the storage has locks that end with their holder."""
        return nullcontext()
