"""The files below a folder, and how many were passed over for which reason: what is named adds up to what is there."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from epalm.datasets.extensions import is_hidden, may_be, modality_of
from epalm.samples import Modality

UNKNOWN, HIDDEN, LINK, TWICE = "of unknown kind", "hidden", "link", "link to what is read already"
_UNREADABLE = "folder that cannot be read"


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
