"""Objects as files below a folder: there whole or not at all, also after kill -9 or a power cut."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from epalm.cache.objects.base import MissingObjectError, Stored
from epalm.cache.objects.durable import fsync_directory, link_first_wins, take_lock, write_atomically
from epalm.errors import CacheError

_LOCK_TIMEOUT = 600.0  # seconds: longer than any block takes to write


class LocalObjects:
    """See `Objects`. Folders are made when something is put into them."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)

    def below(self, folder: str) -> "LocalObjects":
        """See `Objects`."""
        return LocalObjects(self.root / folder)

    def read(self, key: str) -> bytes:
        """See `Objects`."""
        with self._reading(key) as path:
            return path.read_bytes()

    def read_into(self, key: str, target: memoryview) -> int:
        """See `Objects`."""
        with self._reading(key) as path, path.open("rb", buffering=0) as file:
            done = 0
            while done < len(target) and (more := file.readinto(target[done:])):
                done += more
            return done

    def size(self, key: str) -> int | None:
        """See `Objects`."""
        try:
            return (self.root / key).stat().st_size
        except OSError:
            return None

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Objects`."""
        with self._writing(key) as path:
            write_atomically(path, data)

    def write_new(self, key: str, data: bytes) -> bool:
        """See `Objects`."""
        with self._writing(key) as path:
            return link_first_wins(path, data)

    def append(self, key: str, line: bytes) -> None:
        """See `Objects`."""
        # The lock is for network drives, where appending is no single step.
        with self.lock(key), self._writing(key) as path:
            new = not path.exists()
            # The leading newline ends a line that a kill or a full disk may have left torn.
            torn = b"" if new or _ends_whole(path) else b"\n"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if os.write(descriptor, torn + line) != len(torn + line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if new:
                fsync_directory(path.parent)

    def lines(self, key: str) -> bytes:
        """See `Objects`."""
        try:
            return self.read(key)
        except MissingObjectError:
            return b""

    def names(self, folder: str) -> list[str]:
        """See `Objects`."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CacheError(f"{self.root / folder} cannot be read: {error.strerror}") from error

    def walk(self) -> Iterator[Stored]:
        """See `Objects`."""
        for parent, _, files in os.walk(self.root):
            for name in files:
                path = Path(parent) / name
                with contextlib.suppress(FileNotFoundError):  # another process has just taken it away
                    status = path.lstat()
                    yield Stored(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def delete(self, key: str) -> None:
        """See `Objects`."""
        with self._writing(key, make=False) as path:
            path.unlink(missing_ok=True)

    def delete_below(self, folder: str) -> None:
        """See `Objects`."""
        with self._writing(folder, make=False) as path, contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def path(self, key: str) -> Path | None:
        """See `Objects`."""
        return self.root / key

    def free_bytes(self) -> int | None:
        """See `Objects`."""
        there = next((path for path in (self.root.absolute(), *self.root.absolute().parents) if path.exists()), None)
        return shutil.disk_usage(there).free if there else None

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold a lock that ends with the process; where the file system has none, go without.

        Raises:
            CacheError: another process has held it for ten minutes.
        """
        with self._writing(_beside(key)) as path:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait_for(descriptor, path)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self.root / key
        try:
            yield path
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingObjectError(f"{path} is missing", hint="epalm cache verify says what is whole") from error
        except OSError as error:
            raise CacheError(
                f"{path} cannot be read: {error.strerror}", hint="check the disk and the rights of the folder"
            ) from error

    @contextlib.contextmanager
    def _writing(self, key: str, *, make: bool = True) -> Iterator[Path]:
        path = self.root / key
        try:
            if make and not path.parent.exists():
                _make(path.parent)
            yield path
        except OSError as error:
            raise CacheError(
                f"the cache cannot be written: {error}",
                hint="free space or rights, or give another --cache, then run the same command again: "
                "what is committed stays",
            ) from error


def _beside(key: str) -> str:
    """Where the lock of a key lies: in its folder, under a name that is never listed."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}.{name}.lock"


def _make(folder: Path) -> None:
    """Create a folder and those above it, so that they survive a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        fsync_directory(one.parent)


def _wait_for(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            if take_lock(descriptor):
                return
        except OSError as error:
            raise CacheError(f"{path} cannot be locked: {error.strerror}") from error
        if time.monotonic() > deadline:
            raise CacheError(
                f"another process has held {path} for {_LOCK_TIMEOUT:.0f} s", hint="end it, then run this again"
            )
        time.sleep(0.01)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
