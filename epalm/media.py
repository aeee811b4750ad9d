"""Where a medium's bytes lie: in a file of its own, or in a stretch of a tar shard. Knows files; knows no format."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One medium: all of the file at `path`, or the `size` bytes that begin at `offset` of it."""

    path: Path
    offset: int = 0
    size: int | None = None  # bytes; None: the whole file

    def status(self) -> tuple[int, int] | None:
        """Size in bytes and modification time in ns of the file the bytes lie in; None when there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def open(self) -> BinaryIO:
        """The medium's bytes, to be closed by the caller; a stretch of a shard is read into memory. Raises OSError."""
        if self.size is None:
            return self.path.open("rb")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))
