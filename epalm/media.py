"""Where a medium's bytes lie: in a file below the data root, or in a stretch of a tar shard. Knows no format."""

import errno
import io
import os
import re
import stat
import time
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from epalm.errors import MediaError
from epalm.fingerprint import digest_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Stretch = tuple[int, int] | bytes  # (offset, size) of a file, or what stands there instead
# http:, file:, concat:, data: … FFmpeg reads many; and what Windows writes. Files may have such names.
_ODD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|.*\\", re.DOTALL)
_PLAIN_NAME = re.compile(r"(?!\.{1,2}\Z)[^\0\\/]+")
_TRUST = 1.0  # seconds for which a folder counts as still being what it was


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

    def unchanged(self, status: Status, digest: str) -> bool:
        """Whether the bytes still have that digest; they are read again only where the file is in another state."""
        return self.status() == status or self.digest() == digest

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
        self._owned, self._position = owned, 0
        self._stretches = [stretch for stretch in stretches if length_of(stretch) > 0]
        self._ends = list(accumulate(map(length_of, self._stretches)))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + (0, self._position, self._ends[-1] if self._ends else 0)[whence]
        if position < 0:
            raise OSError(f"seeking to {position}, before the stretches begin")
        self._position = position
        return position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        index = bisect_right(self._ends, self._position)
        if index == len(self._ends):  # a header may lead anywhere behind the end
            return 0
        stretch, left = self._stretches[index], self._ends[index] - self._position
        part = memoryview(buffer)[:left]
        done, count = length_of(stretch) - left, len(part)
        if isinstance(stretch, bytes):
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


class MediaRoot:
    """The data root, for locating many media: a folder is resolved once for all the files in it.

    Data files are untrusted: absolute paths, `..`, URLs and links that lead out of the root are refused. A file that
    became a link is always noticed; a folder that did, after `trust` seconds at the latest.

    With `follow_links`, links are the user's own and may lead out; `linked` has the folders that they led to.
    """

    def __init__(self, root: Path, *, trust: float = _TRUST, follow_links: bool = False) -> None:
        self._given, self._trust, self._follow = root, trust, follow_links
        self.linked: set[str] = set()
        self._forget()

    def locate(self, media: str) -> Path:
        """The real path of `media` below the root, which need not exist. Raises MediaError: it leads outside."""
        if time.monotonic() - self._since >= self._trust:
            self._forget()
        cut = media.rfind("/") + 1
        written, name = media[:cut], media[cut:]
        if _PLAIN_NAME.fullmatch(name) and (written or not _ODD.match(name)):
            if written not in self._folders:
                self._folders[written] = None  # where its files have to be looked at one by one
                with suppress(MediaError):
                    self._folders[written] = Path(self._resolve(written) if written else self._root)
            folder = self._folders[written]
            if folder is not None and not _is_link(path := folder / name):  # far cheaper than a path from all its text
                return path
        return Path(self._resolve(media))

    def _forget(self) -> None:
        self._folders: dict[str, Path | None] = {}  # as written → real path; None: not inside the root
        self._since = time.monotonic()
        self._root = os.path.realpath(self._given)

    def _resolve(self, media: str) -> str:
        """The real path of any text, every link on its way followed."""
        hint = f"media paths are relative to the data root {self._given}"
        pure = PurePosixPath(media)
        odd = _ODD.match(media) and not os.path.lexists(os.path.join(self._root, media))  # noqa: PTH118
        if not media or "\0" in media or odd:
            raise MediaError(f"{media!r} is not a media path", hint=hint)
        if pure.is_absolute() or ".." in pure.parts:
            raise MediaError(f"{media!r} leads outside the data root", hint=hint)
        try:
            path = os.path.realpath(os.path.join(self._root, pure))  # noqa: PTH118
            if _is_link(path):  # which `realpath` leaves in its answer where links lead to each other
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        except (OSError, ValueError) as error:
            raise MediaError(f"{media!r} is not a media path: {error}", hint=hint) from error
        if not Path(path).is_relative_to(self._root):
            if not self._follow:
                hint = f"--follow-links, where links below the data root {self._given} are your own"
                raise MediaError(f"{media!r} is a link that leads outside the data root", hint=hint)
            self._note_linked(pure)
        return path

    def _note_linked(self, media: PurePosixPath) -> None:
        """Keep the folders out of the root, and out of each other, that the links on a path's way lead to."""
        root = Path(self._root)
        for part in (*reversed(media.parents), media):
            path = Path(self._root, part).resolve()
            if not path.is_relative_to(root):
                root = path if path.is_dir() else path.parent
                self.linked.add(str(root))


def _is_link(path: str | Path) -> bool:
    """Whether it is a link, leads through a loop of links, or is text that no file name can be."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:
        return True
