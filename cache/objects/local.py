"""Objects as files below a folder: there whole or not at all, also after kill -9 or a power cut."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from epalm.cache.objects.base import MissingObjectError, Objects, Stored
from epalm.cache.objects.durable import free_bytes, fsync, take_lock, write_atomically
from epalm.errors import CacheError

_LOCK_TIMEOUT = 600.0  # seconds: longer than any block takes to write


class LocalObjects(Objects):
    """See `Objects`. Folders are made when something is put into them."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)

    def below(self, folder: str) -> "LocalObjects":
        return LocalObjects(self.root / folder)

    def read(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def read_into(self, key: str, target: memoryview) -> int:
        with self._reading(key) as path, path.open("rb") as file:
            return file.readinto(target)

    def size(self, key: str) -> int | None:
        with contextlib.suppress(MissingObjectError), self._reading(key) as path:
            return path.stat().st_size
        return None

    def write(self, key: str, data: bytes | memoryview) -> None:
        with self._writing(key) as path:
            write_atomically(path, data)

    def write_new(self, key: str, data: bytes) -> bool:
        with self._writing(key) as path:
            return write_atomically(path, data, replace=False)

    def append(self, key: str, line: bytes) -> None:
        # The lock is for network drives, where appending is no single step.
        with self.lock(key), self._writing(key) as path, path.open("a+b", buffering=0) as file:
            size = file.tell()
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # a kill or a full disk has left a torn line, which ends here
                    line = b"\n" + line
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            if not size:
                fsync(path.parent)

    def names(self, folder: str) -> list[str]:
        with contextlib.suppress(MissingObjectError), self._reading(folder) as path:
            return sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
        return []

    def walk(self) -> Iterator[Stored]:
        def key(path: str) -> str:
            return Path(path).relative_to(self.root).as_posix()

        def refuse(error: OSError) -> None:
            with contextlib.suppress(MissingObjectError), self._reading(key(error.filename)):
                raise error

        for parent, _, files in os.walk(self.root, onerror=refuse):
            for one in (key(f"{parent}/{name}") for name in files):
                # What is missing, another process has just taken away.
                with contextlib.suppress(MissingObjectError), self._reading(one) as path:
                    status = path.lstat()
                    yield Stored(one, status.st_size, status.st_mtime)

    def delete(self, key: str) -> None:
        with self._writing(key, make=False) as path:
            path.unlink(missing_ok=True)

    def delete_below(self, folder: str) -> None:
        with self._writing(folder, make=False) as path, contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def path(self, key: str) -> Path | None:
        return self.root / key

    def free_bytes(self) -> int | None:
        return free_bytes(self.root)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """See `Objects`. Raises CacheError when another process has held the lock for ten minutes."""
        folder, slash, name = key.rpartition("/")
        with self._writing(f"{folder}{slash}.{name}.lock") as path, path.open("ab") as file:
            deadline = time.monotonic() + _LOCK_TIMEOUT
            while not take_lock(file.fileno()):
                if time.monotonic() > deadline:
                    message = f"another process has held {path} for {_LOCK_TIMEOUT:.0f} s"
                    raise CacheError(message, hint="end it, then run this again")
                time.sleep(0.01)
            yield

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self.root / key
        try:
            yield path
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingObjectError(f"{path} is missing", hint="epalm cache verify says what is whole") from error
        except OSError as error:
            hint = "check the disk and the rights of the folder"
            raise CacheError(f"{path} cannot be read: {error.strerror}", hint=hint) from error

    @contextlib.contextmanager
    def _writing(self, key: str, *, make: bool = True) -> Iterator[Path]:
        path = self.root / key
        try:
            if make and not path.parent.exists():
                missing = [folder for folder in path.parents if not folder.exists()]
                path.parent.mkdir(parents=True, exist_ok=True)
                for folder in missing:
                    fsync(folder.parent)
            yield path
        except OSError as error:
            again = "then run the same command again: what is committed stays"
            hint = f"free space or rights, or give another --cache, {again}"
            raise CacheError(f"the cache cannot be written: {error}", hint=hint) from error
