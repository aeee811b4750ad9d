"""From a media path written in a data file to a file below the data root, and nowhere else.

Looks at names and links; opens nothing, and does not ask whether a file is there.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from epalm.errors import MediaError

# http:, file:, concat:, data: … FFmpeg reads many; and what Windows writes. Files may have such names.
_ODD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|.*\\", re.DOTALL)
_LONGEST_NAME = 255  # bytes, on every file system in use

# A file name that is none of the odd ones: not ".", "..", nothing with NUL or backslash, at most 255 bytes, taking
# any character for four of them unless all are ASCII.
_PLAIN_NAME = re.compile(r"(?!\.{1,2}\Z)(?:[^\0\\/]{1,63}|[\x01-.0-\[\]-\x7f]{64,255})")
_MOST_FOLDERS = 1 << 16  # remembered at a time
_TRUST = 1.0  # seconds for which a folder counts as still being what it was


def relative_to(root: Path) -> Callable[[str], str]:
    """Turns a path as data files write it into one below `root`: an absolute one that lies there, and backslashes.

    Any other text is given back, for `MediaRoot` to judge.
    """
    folders = [os.path.join(folder, "") for folder in (os.path.abspath(root), os.path.realpath(root))]  # noqa: PTH100, PTH118

    def relative(media: str) -> str:
        if "\\" in media and not os.path.lexists(os.path.join(folders[0], media)):  # noqa: PTH118
            media = media.replace("\\", "/")
        for folder in folders:
            if media.startswith(folder) and ".." not in PurePosixPath(media).parts:
                return media[len(folder) :].lstrip("/")
        return media

    return relative


class MediaRoot:
    """The data root, for locating many media: a folder is resolved once for all the files in it.

    Data files are untrusted: absolute paths, `..`, URLs and links that lead out of the root are refused. A file that
    became a link is always noticed; a folder that did, after `trust` seconds at the latest.

    With `follow_links`, links are the user's own and may lead out; `linked` has the folders that they led to.
    """

    def __init__(self, root: Path, *, trust: float = _TRUST, follow_links: bool = False) -> None:
        self._given, self._trust, self._follow = root, trust, follow_links
        self.linked: set[str] = set()
        self._hint = f"media paths are relative to the data root {root}"
        self._folders: dict[str, str | None] = {}  # as written → real path with "/"; None: not inside the root
        self._forget()

    def locate(self, media: str) -> Path:
        """The real path of `media` below the root. It need not exist; that is for the decoder to say.

        Raises:
            MediaError: the path leads outside the root.
        """
        if time.monotonic() - self._since >= self._trust or len(self._folders) >= _MOST_FOLDERS:
            self._forget()
        cut = media.rfind("/") + 1
        written, name = media[:cut], media[cut:]
        if _PLAIN_NAME.fullmatch(name) and (written or not _ODD.match(name)):
            if written not in self._folders:
                self._folders[written] = self._resolve_folder(written)
            folder = self._folders[written]
            if folder is not None and not _is_link(folder + name):
                return Path(folder + name)
        return Path(self._resolve(media))

    def _forget(self) -> None:
        self._folders.clear()
        self._since = time.monotonic()
        self._root = os.path.realpath(self._given)

    def _resolve_folder(self, written: str) -> str | None:
        """Where a folder really is, or None where its files have to be looked at one by one."""
        try:
            folder = self._resolve(written) if written else self._root
        except MediaError:
            return None
        return os.path.join(folder, "")  # noqa: PTH118

    def _resolve(self, media: str) -> str:
        """The real path of any text, every link on its way followed."""
        hint = self._hint
        odd = _ODD.match(media) and not os.path.lexists(os.path.join(self._root, media))  # noqa: PTH118
        if not media or "\0" in media or odd:
            raise MediaError(f"{media!r} is not a media path", hint=hint)
        pure = PurePosixPath(media)
        if pure.is_absolute() or ".." in pure.parts:
            raise MediaError(f"{media!r} leads outside the data root", hint=hint)
        try:
            if any(len(os.fsencode(part)) > _LONGEST_NAME for part in pure.parts):
                raise MediaError(f"{media[:60]!r}… has a name of over {_LONGEST_NAME} bytes", hint=hint)
            path = os.path.realpath(os.path.join(self._root, pure))  # noqa: PTH118
            if _is_link(path):  # which `realpath` leaves in its answer where links lead to each other
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        except (OSError, ValueError) as error:
            raise MediaError(f"{media!r} is not a media path: {error}", hint=hint) from error
        if not _is_below(path, self._root):
            if not self._follow:
                hint = f"--follow-links, where links below the data root {self._given} are your own"
                raise MediaError(f"{media!r} is a link that leads outside the data root", hint=hint)
            self._note_linked(pure)
        return path

    def _note_linked(self, media: PurePosixPath) -> None:
        """Keep the folders out of the root, and out of each other, that the links on a path's way lead to."""
        root = self._root
        for part in (*reversed(media.parents), media):
            path = os.path.realpath(os.path.join(self._root, part))  # noqa: PTH118
            if not _is_below(path, root):
                root = path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120
                self.linked.add(root)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(os.path.join(root, ""))  # noqa: PTH118


def _is_link(path: str) -> bool:
    """Whether it is a link, leads through a loop of links, or is text that no file name can be."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:
        return True
