"""Members of an HDF5 file that a stranger may have made: plain arrays that lie whole in the file, or an error.

HDF5 can point out of the file (external links and storage, virtual data sets), run plugins (filters), hold Python
objects, and claim any size. Nothing of that is followed, run, unpickled or allocated: a member is a hard link to a
contiguous array of one plain type whose bytes lie inside the file. Knows no feature sets.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.errors import CacheError

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_MEMBERS = 10_000
# h5py has no error of its own: a file that makes no sense may raise any of these.
_FAULTS = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError)


@contextlib.contextmanager
def open_members(path: Path) -> Iterator["Members"]:
    """The members of a file's root. Raises CacheError when it is no HDF5 file."""
    import h5py

    try:
        if not path.is_file():  # a pipe would be waited for, a device read without end
            raise CacheError(f"{path} is no file")
        with path.open("rb") as start:
            if start.read(len(_SIGNATURE)) != _SIGNATURE:
                raise CacheError(f"{path} is no HDF5 file", hint="epalm cache export SET FILE.h5 makes one")
        with _faults(f"{path}"):
            file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        yield Members(file.id, str(path), path.stat().st_size)
    finally:
        file.close()


class Members:
    """A group of an HDF5 file: texts, arrays and groups by name."""

    def __init__(self, group: "h5py.h5g.GroupID", where: str, file_bytes: int) -> None:
        self._group, self._where, self._file_bytes = group, where, file_bytes

    def names(self) -> list[str]:
        """Of all members, in order. Raises CacheError where there are more than any export writes."""
        with _faults(self._where):
            if self._group.get_num_objs() > _MOST_MEMBERS:
                raise CacheError(f"{self._where} has {self._group.get_num_objs():,} members")
            return sorted(name.decode() for name in self._group)

    def group(self, name: str) -> "Members":
        """A group among the members. Raises CacheError."""
        from h5py import h5g

        with _faults(self._place(name)):
            found = self._open(name)
            if type(found) is not h5g.GroupID:
                raise CacheError(f"{self._place(name)} is no group")
            return Members(found, self._place(name), self._file_bytes)

    def text(self, name: str) -> bytes:
        """All of an array of bytes. Raises CacheError."""
        return bytes(self.array(name, np.dtype("u1"), dimensions=1)[...].tobytes())

    def array(self, name: str, dtype: np.dtype[Any], *, dimensions: int) -> "Array":
        """A member of exactly that type and number of dimensions; nothing is read yet. Raises CacheError."""
        from h5py import h5d, h5s, h5t

        where = self._place(name)
        with _faults(where):
            found = self._open(name)
            if type(found) is not h5d.DatasetID:
                raise CacheError(f"{where} is no array")
            settings, space = found.get_create_plist(), found.get_space()
            if settings.get_layout() != h5d.CONTIGUOUS or settings.get_nfilters():
                raise CacheError(f"{where} is virtual, filtered or in pieces; an export is none of these")
            if settings.get_external_count():
                raise CacheError(f"{where} lies in another file")
            if not found.get_type().equal(h5t.py_create(dtype)):
                raise CacheError(f"{where} is not of type {dtype.name}")
            if space.get_simple_extent_type() != h5s.SIMPLE or space.get_simple_extent_ndims() != dimensions:
                raise CacheError(f"{where} has not {dimensions} dimensions")
            shape = tuple(int(length) for length in space.get_simple_extent_dims())
            size, offset = dtype.itemsize, found.get_offset()
            for length in shape:
                size *= length
            # Checked before anything is allocated. Storage that was never written would read as zeros.
            if found.get_storage_size() != size or offset is None or not 0 < offset <= self._file_bytes - size:
                raise CacheError(f"{where} claims {size:,} bytes {shape} that are not in the file")
            return Array(found, where, shape)

    def _open(self, name: str) -> Any:
        from h5py import h5l, h5o

        key = name.encode()
        if key not in self._group:
            raise CacheError(f"{self._place(name)} is missing")
        if self._group.links.get_info(key).type != h5l.TYPE_HARD:
            raise CacheError(f"{self._place(name)} is a link that leads elsewhere")
        return h5o.open(self._group, key)

    def _place(self, name: str) -> str:
        return f"{self._where}:/{name}" if ":/" not in self._where else f"{self._where}/{name}"


class Array:
    """An array in the file; slices of its first dimension are read when they are asked for."""

    def __init__(self, data: "h5py.h5d.DatasetID", where: str, shape: tuple[int, ...]) -> None:
        self._data, self.where, self.shape = data, where, shape

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Raises CacheError."""
        import h5py

        with _faults(self.where):
            return np.asarray(h5py.Dataset(self._data)[rows])


@contextlib.contextmanager
def _faults(where: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise CacheError(f"{where} cannot be read as HDF5: {words}") from error
