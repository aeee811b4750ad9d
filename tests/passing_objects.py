"""A store that hands everything on to another one, and lets a test look at it, change it or stop it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from epalm.cache.objects.base import Objects, Stored
from epalm.cache.store import Cache

See = Callable[[str, str, bytes], bytes]  # what is done, to which key, with which bytes → the bytes to go on with


class PassingObjects(Objects):
    """See `Objects`. `see` is called with everything that is read, before everything that is written."""

    def __init__(self, inner: Objects, see: See, folder: str = "") -> None:
        self._inner, self._see, self._folder, self.where = inner, see, folder, inner.where

    def below(self, folder: str) -> "PassingObjects":
        return PassingObjects(self._inner.below(folder), self._see, f"{self._folder}{folder}/")

    def read(self, key: str) -> bytes:
        return self._see("read", self._folder + key, self._inner.read(key))

    def read_into(self, key: str, target: memoryview) -> int:
        data = self.read(key)[: len(target)]
        target[: len(data)] = data
        return len(data)

    def size(self, key: str) -> int | None:
        return self._inner.size(key)

    def write(self, key: str, data: bytes | memoryview) -> None:
        self._inner.write(key, self._see("write", self._folder + key, bytes(data)))

    def write_new(self, key: str, data: bytes) -> bool:
        return self._inner.write_new(key, self._see("write", self._folder + key, data))

    def append(self, key: str, line: bytes) -> None:
        self._inner.append(key, self._see("write", self._folder + key, line))

    def lines(self, key: str) -> bytes:
        return self._inner.lines(key)

    def names(self, folder: str) -> list[str]:
        return self._inner.names(folder)

    def walk(self) -> Iterator[Stored]:
        return self._inner.walk()

    def delete(self, key: str) -> None:
        self._see("delete", self._folder + key, b"")
        self._inner.delete(key)

    def delete_below(self, folder: str) -> None:
        self._see("delete", self._folder + folder, b"")
        self._inner.delete_below(folder)

    def path(self, key: str) -> Path | None:
        return self._inner.path(key)

    def free_bytes(self) -> int | None:
        return self._inner.free_bytes()

    def lock(self, key: str) -> AbstractContextManager[None]:
        return self._inner.lock(key)


def passing(objects: Objects, see: See) -> Objects:
    """`objects`, seen."""
    return PassingObjects(objects, see)


def seen_cache(where: str | Path, see: See) -> Cache:
    """A cache whose objects are seen."""
    cache = Cache(where)
    cache.objects = passing(cache.objects, see)
    return cache
