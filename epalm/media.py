"""Where a medium's bytes lie: in a file of its own, or in a stretch of a tar shard. Knows files; knows no format."""

import io
import os
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from epalm.fingerprint import digest_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Stretch = tuple[int, int] | bytes  # (offset, size) of a file, or what stands there instead


class Status(NamedTuple):
    """A file's state: equal states, equal bytes. Tools can set the modification time back, but not that of a change."""

    size: int  # bytes
    mtime: int  # ns, of the last modification as the file says
    ctime: int  # ns, of the last change to the file, its name or its rights


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One medium: all of the file at `path`, or the `size` bytes that begin at `offset` of it."""

    path: Path
    offset: int = 0
    size: int | None = None  # bytes; None: the whole file

    def status(self) -> Status | None:
        """The state of the file that the bytes lie in; None when there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return Status(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def digest(self) -> str | None:
        """SHA-256 (hex) of the medium's bytes as they are now; None when they cannot be read."""
        try:
            return digest_file(self.path, self.offset, self.size)
        except OSError:
            return None

    def open(self) -> BinaryIO:
        """The medium's bytes, to be closed by the caller; of a shard, only its stretch is seen. Raises OSError."""
        file = self.path.open("rb")
        return file if self.size is None else composed(file, [(self.offset, self.size)], owned=True)


def composed(file: BinaryIO, stretches: Iterable[Stretch], *, owned: bool = False) -> BinaryIO:
    """Stretches of `file`, one after the other, as a file of their own; where `owned`, `file` is closed with it."""
    return io.BufferedReader(_Composed(file, stretches, owned))


def length_of(stretch: Stretch) -> int:
    """In bytes."""
    return len(stretch) if isinstance(stretch, bytes) else stretch[1]


class _Composed(io.RawIOBase):
    """Nothing is read before it is asked for: a long clip takes no memory."""

    def __init__(self, file: BinaryIO, stretches: Iterable[Stretch], owned: bool) -> None:
        self._file: Any = file  # whatever kind it is, it has `readinto`, which copies nothing twice
        self._owned = owned
        self._stretches = [stretch for stretch in stretches if length_of(stretch) > 0]
        self._ends: list[int] = []
        for stretch in self._stretches:
            self._ends.append(length_of(stretch) + (self._ends[-1] if self._ends else 0))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = self._ends[-1] if self._ends else 0
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        if start + offset < 0:
            raise OSError(f"seeking to {start + offset}, before the stretches begin")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        index = bisect_right(self._ends, self._position)
        if index == len(self._ends):  # a header may lead anywhere behind the end
            return 0
        stretch, left = self._stretches[index], self._ends[index] - self._position
        part = memoryview(buffer)[:left]
        done = length_of(stretch) - left
        if isinstance(stretch, bytes):
            count = len(part)
            part[:] = stretch[done : done + count]
        else:
            self._file.seek(stretch[0] + done)
            count = self._file.readinto(part) or 0
        self._position += count
        return count

    def close(self) -> None:
        if self._owned:
            self._file.close()
        super().close()
