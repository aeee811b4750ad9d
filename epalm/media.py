"""Where a medium's bytes lie: in a file of its own, or in a stretch of a tar shard. Knows files; knows no format."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


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

    def open(self) -> BinaryIO:
        """The medium's bytes, to be closed by the caller; of a shard, only its stretch is seen. Raises OSError."""
        if self.size is None:
            return self.path.open("rb")
        return io.BufferedReader(_Stretch(self.path.open("rb", buffering=0), self.offset, self.size))


class _Stretch(io.RawIOBase):
    """`size` bytes from `offset` of an open file, as a file of their own: a long clip is not read into memory."""

    def __init__(self, file: io.FileIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(f"seeking to {start + offset}, before the stretch begins")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        part = memoryview(buffer)[: max(0, self._size - self._position)]
        if not part:  # a header may lead anywhere behind the end
            return 0
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(part) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
