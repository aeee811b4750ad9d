"""Local copies of objects, to map into memory what does not fit there: the objects' own files where they have some.

Does not know what the objects hold: whoever maps a copy checks it.
"""

import hashlib
import os
import shutil
import tempfile
import uuid
import weakref
from pathlib import Path

from epalm.cache.objects.base import Objects
from epalm.errors import CacheError

_HINT = "set TMPDIR to a folder with room for the feature set, or pull it to a local cache"


class Spool:
    """Copies in a temporary folder below TMPDIR, each made when first asked for.

    The folder goes when the spool is closed or collected, or when the process ends by itself. Safe from several
    threads.
    """

    def __init__(self, objects: Objects) -> None:
        """Raises CacheError when copies are needed and there is no folder for them."""
        self._objects = objects
        self._folder: Path | None = None
        if objects.path("") is None:
            try:
                self._folder = Path(tempfile.mkdtemp(prefix="epalm-spool-"))
            except OSError as error:
                raise CacheError(f"no folder for copies of {objects.where}: {error.strerror}", hint=_HINT) from error
        self._remove = weakref.finalize(self, _remove, self._folder, os.getpid())

    def path(self, key: str) -> Path:
        """A file with an object's bytes; it must not be written to.

        Raises:
            MissingObjectError: there is no such object.
            CacheError: it cannot be read, or the copies do not fit on the local disk.
        """
        if self._folder is None:
            own = self._objects.path(key)
            assert own is not None
            return own
        copy = self._folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        if not copy.exists():
            data = self._objects.read(key)
            draft = copy.with_suffix(f".{uuid.uuid4().hex[:8]}")  # two threads may want the same one
            try:
                draft.write_bytes(data)
                draft.rename(copy)
            except OSError as error:
                draft.unlink(missing_ok=True)
                where = f"{self._objects.where}/{key}"
                raise CacheError(f"{where} cannot be copied to {copy.parent}: {error.strerror}", hint=_HINT) from error
        return copy

    def close(self) -> None:
        """Take all copies away. What is mapped stays readable until it is let go."""
        self._remove()


def _remove(folder: Path | None, owner: int) -> None:
    if folder is not None and os.getpid() == owner:  # a forked child ends without taking its parent's copies away
        shutil.rmtree(folder, ignore_errors=True)
