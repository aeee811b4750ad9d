"""A file that HDF5 writes to and never sees fail: the library does not survive a full disk.

A write that fails inside HDF5 fails again whenever the file is closed, with pages of messages, and may crash the
process as it ends. Here the first fault is kept, everything after it is dropped, and whoever writes asks for it.
"""

import io
from pathlib import Path
from typing import Any


class Sink(io.RawIOBase):
    """What h5py takes for a file object."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = path.open("r+b", buffering=0)
        self._fault: BaseException | None = None

    def raise_fault(self) -> None:
        """Raise what a write has failed with, if one has."""
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Let the file go."""
        self._file.close()
        super().close()

    def readinto(self, target: Any) -> int:
        """See `io.RawIOBase`; zeros where nothing is."""
        view = memoryview(target).cast("B")
        done = 0
        while done < len(view) and (more := self._file.readinto(view[done:])):
            done += more
        view[done:] = bytes(len(view) - done)
        return len(view)

    def write(self, data: Any) -> int:
        """See `io.RawIOBase`; all of it, or the fault is kept."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self._fault is None:
                done += self._file.write(view[done:]) or 0
        except BaseException as fault:  # Ctrl-C too would be lost in HDF5: raise_fault brings it back
            self._fault = fault
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """See `io.RawIOBase`; a fault is kept."""
        try:
            if self._fault is None:
                return self._file.truncate(size)
        except OSError as fault:
            self._fault = fault
        return size or 0
