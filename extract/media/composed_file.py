"""A file that is put together of stretches of another one. Knows bytes; knows no format."""

import io
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Stretch = tuple[int, int] | bytes  # (offset, size) of a file, or what stands there instead


def keep(stretches: list[Stretch], start: int, size: int) -> None:
    """Add a stretch, to the last one where it follows that: files of many small parts take no memory."""
    last = stretches[-1] if stretches else b""
    if isinstance(last, tuple) and sum(last) == start:
        stretches[-1] = (last[0], last[1] + size)
    else:
        stretches.append((start, size))


def length_of(stretch: Stretch) -> int:
    """In bytes."""
    return len(stretch) if isinstance(stretch, bytes) else stretch[1]


def composed(file: BinaryIO, stretches: list[Stretch]) -> BinaryIO:
    """The stretches, one after the other, as a file of their own; `file` stays open below it."""
    return io.BufferedReader(_Composed(file, stretches))


class _Composed(io.RawIOBase):
    """Nothing is read before it is asked for."""

    def __init__(self, file: BinaryIO, stretches: list[Stretch]) -> None:
        self._file, self._stretches = file, [stretch for stretch in stretches if length_of(stretch) > 0]
        self._ends = []
        end = 0
        for stretch in self._stretches:
            end += length_of(stretch)
            self._ends.append(end)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ends[-1]}[whence]
        if start + offset < 0:
            raise OSError(f"seeking to {start + offset}, before the file begins")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        index = bisect_right(self._ends, self._position)
        if index == len(self._ends):
            return 0
        stretch, left = self._stretches[index], self._ends[index] - self._position
        part = memoryview(buffer)[:left]
        done = length_of(stretch) - left
        if isinstance(stretch, bytes):
            part[:] = data = stretch[done : done + len(part)]
        else:
            self._file.seek(stretch[0] + done)
            data = self._file.read(len(part))
            part[: len(data)] = data
        self._position += len(data)
        return len(data)
