"""Files that are there whole or not at all, even after a power cut, and whether they fit. Knows bytes and names."""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epalm.console import size_in_words
from epalm.errors import CacheError

_OVERHEAD = 1.05  # of features: records and descriptions
_MARGIN = 64 << 20  # bytes that are left free
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems without locks say


def write_atomically(path: Path, data: bytes | memoryview, *, replace: bool = True) -> bool:
    """Put `data` at `path` in one step, replacing what is there unless not `replace`; whether it was put."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    fsync(path.parent)
    return True


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """An empty file that gets the name `path` when the block ends well, replacing what is there, and else is gone.

    There is one draft for a path, so that the next one overwrites what a kill has left of it. Raises BlockingIOError
    when another process is writing it.
    """
    draft = path.with_name(f".{path.name}.part")
    with draft.open("ab") as file:
        alone = take_lock(file.fileno())
        # Between opening and locking, another process may have made the draft the finished file.
        if not (alone and draft.exists() and os.path.samestat(draft.lstat(), os.fstat(file.fileno()))):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
        try:
            file.truncate(0)
            yield draft
            os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Make the bytes of a file that is closed, or the names that were put into a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether the open file is locked for this process now; False: another one has it. It ends with the process.

    Where the file system has no locks, everybody gets it. Raises OSError where it cannot be told.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def free_bytes(folder: Path) -> int:
    """What still fits below a folder, which need not be there yet."""
    whole = folder.absolute()
    return shutil.disk_usage(next(path for path in (whole, *whole.parents) if path.exists())).free


def require_room(needed: int, free: int | None, where: object, hint: str) -> None:
    """Raise CacheError when `needed` bytes would not fit into the `free` ones (None: no known limit), a margin left."""
    if needed and free is not None and int(needed * _OVERHEAD) + _MARGIN > free:
        raise CacheError(
            f"{size_in_words(needed)} do not fit: {size_in_words(free)} are free in {where}, and "
            f"{size_in_words(_MARGIN)} of them are kept",
            hint=hint,
        )
