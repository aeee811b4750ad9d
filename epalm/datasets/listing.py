"""The files below a folder: what their names say of them, and how many were passed over for which reason.

What is named adds up to what is there. The one list of extensions for folders, shards and benchmarks; nothing is
opened, so a wrong extension is the decoder's to notice.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath

from epalm.samples import Modality

EXTENSIONS = {
    Modality.IMAGE: (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".avif", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm",
    ),
    Modality.VIDEO: (
        ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".flv",
        ".f4v", ".ogv", ".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".wmv", ".asf",
    ),
    Modality.AUDIO: (
        ".wav", ".wave", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga", ".m4a", ".m4b", ".aac",
        ".aiff", ".aif", ".aifc", ".caf", ".au", ".snd", ".ac3", ".eac3", ".wma", ".mka", ".weba", ".amr", ".wv",
    ),
}  # fmt: skip
MODALITIES = {extension: modality for modality, known in EXTENSIONS.items() for extension in known}
SPLITS = ("train", "val", "test")
UNKNOWN, HIDDEN, LINK, TWICE = "of unknown kind", "hidden", "link", "link to what is read already"
_UNREADABLE = "folder that cannot be read"
# Extensions of another modality whose files may be this one's as well: clips have sound, and some have nothing else.
_MAY_BE = {
    Modality.IMAGE: (),
    Modality.VIDEO: (".gif", ".apng", ".webp", ".ogg"),
    Modality.AUDIO: EXTENSIONS[Modality.VIDEO],
}
# Compressed shards count as shards, to be refused by name where they are read.
_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
_LEFT_BEHIND = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"))
_SPLIT_FOLDER = re.compile(r"(train|val|test)(ing|id|idation)?")


def modality_of(path: PurePath) -> Modality | None:
    """The modality that a file's extension stands for, or None."""
    return MODALITIES.get(path.suffix.lower())


def may_be(path: PurePath, modality: Modality | None) -> bool:
    """Whether a file's extension stands for another modality, and its files may be of this one: sounds in .webm."""
    return modality is not None and path.suffix.lower() in _MAY_BE[modality]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is one that listings leave out: hidden, or left behind by a system."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def is_shard(name: str) -> bool:
    """Whether a file of that name is a tar, compressed or not."""
    return name.lower().endswith(_SHARDS)


def split_of_folder(name: str) -> str | None:
    """Of "train", "val" and "test" the one that a folder is called, longer spellings included, or None."""
    match = _SPLIT_FOLDER.fullmatch(name.lower())
    return match[1] if match else None


def in_words(passed_over: Mapping[str, int]) -> str:
    """One line: 12 files passed over: 9 of unknown kind, 2 hidden, 1 link (--follow-links reads what links lead to)."""
    count = sum(passed_over.values())
    reasons = ", ".join(_reason(*item) for item in sorted(passed_over.items(), key=lambda item: -item[1]))
    remedy = " (--follow-links reads what links lead to)" if passed_over.get(LINK) else ""
    return f"{count:,} file{'s' * (count != 1)} passed over: {reasons}{remedy}"


def _reason(reason: str, count: int) -> str:
    noun, space, rest = reason.partition(" ")
    plural = count != 1 and noun in (LINK, "folder", "sample")
    return f"{count:,} {noun}{'s' * plural}{space}{rest}"


class Listing:
    """What is below some folders of a root: `files`, POSIX paths that are not hidden, and `passed_over`, by reason.

    Folder by folder, in name order. Links to folders are passed over, or with `follow_links` walked after all that is
    no link. No folder is walked twice, so that circles of links end. Links to files are files.
    """

    def __init__(self, root: Path, starts: Sequence[str] = ("",), *, follow_links: bool = False) -> None:
        self.files: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self._walked: set[tuple[int, int]] = set()
        links = list(starts)
        while links:
            folders, links = [(link, False) for link in reversed(links)], []
            while folders:
                below, hidden = folders.pop()
                inner, leading = self._look_into(root, below, hidden=hidden)
                folders += reversed(inner)
                links += leading
            if not follow_links:
                self.passed_over.update({LINK: len(links)})
                break
        self.passed_over = +self.passed_over

    def _look_into(self, root: Path, below: str, *, hidden: bool) -> tuple[list[tuple[str, bool]], list[str]]:
        """Note a folder's files; gives the folders in it, with whether they are hidden, and the links to folders."""
        try:
            status = os.stat(root / below)  # noqa: PTH116
            with os.scandir(root / below) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            self.passed_over[_UNREADABLE] += 1
            return [], []
        if (status.st_dev, status.st_ino) in self._walked:
            self.passed_over[TWICE] += (root / below).is_symlink()
            return [], []
        self._walked.add((status.st_dev, status.st_ino))
        folders, links = [], []
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            secret = hidden or is_hidden(entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append((path, secret))
            elif secret:
                self.passed_over[HIDDEN] += 1
            elif entry.is_symlink() and entry.is_dir():
                links.append(path)
            else:
                self.files.append(path)
        return folders, links


def media_of(files: Iterable[str], modality: Modality | None, passed_over: Counter[str]) -> dict[str, Modality]:
    """Of some files the media, and with a modality those of it alone; counts the others in `passed_over`.

    Where no file's extension stands for the modality, files that may be of it count: sounds in .webm or .mp4.
    """
    kinds = {file: modality_of(PurePosixPath(file)) for file in files}
    if modality is not None and modality not in kinds.values():
        kinds |= {file: modality for file in kinds if may_be(PurePosixPath(file), modality)}
    passed_over.update(kind or UNKNOWN for kind in kinds.values() if kind is None or modality not in (None, kind))
    return {file: kind for file, kind in kinds.items() if kind and modality in (None, kind)}
