"""The files below a folder: what their names say of them, and how many were passed over for which reason.

What is named adds up to what is there. The one list of extensions for folders, shards and benchmarks; nothing is
opened, so a wrong extension is the decoder's to notice.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
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
# Extensions of another modality whose files may be this one's as well: clips have sound, and some have nothing else.
_MAY_BE = {
    Modality.IMAGE: (),
    Modality.VIDEO: (".gif", ".apng", ".webp", ".ogg"),
    Modality.AUDIO: EXTENSIONS[Modality.VIDEO],
}
UNKNOWN, HIDDEN, LINK, TWICE = "of unknown kind", "hidden", "linked", "linked and read already"
# Compressed shards count as shards, to be refused by name where they are read.
_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
_LEFT_BEHIND = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"))
_SPLIT = re.compile(r"(train|val|test)(ing|id|idation)?")


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


def split_of(folders: Iterable[str]) -> str:
    """The first of the folders' names that is "train", "val" or "test", longer spellings included; else "train"."""
    return next((match[1] for name in folders if (match := _SPLIT.fullmatch(name.lower()))), "train")


def passed_over_in_words(passed_over: Mapping[str, int]) -> str:
    """One line: 12 files passed over: 9 of unknown kind, 2 hidden, 1 linked (--follow-links …)."""
    count = sum(passed_over.values())
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in Counter(passed_over).most_common())
    remedy = " (--follow-links reads what links lead to)" if passed_over.get(LINK) else ""
    return f"{count:,} file{'s' * (count != 1)} passed over: {reasons}{remedy}"


def list_files(
    root: Path, starts: Sequence[str] = ("",), *, follow_links: bool = False
) -> tuple[list[str], Counter[str]]:
    """The files below some folders of a root: those that are not hidden, and how many were passed over, by reason.

    POSIX paths below the root, folder by folder, in name order. Links to folders are passed over, or with
    `follow_links` walked after all that is no link. No folder is walked twice, so that circles of links end. Links to
    files are files.
    """
    files, passed_over, links = list[str](), Counter[str](), list(starts)
    walked = set[tuple[int, int]]()

    def unreadable(_: OSError) -> None:
        passed_over["in folders that cannot be read"] += 1

    while links:
        tops, links = links, []
        for folder, inner, names in chain.from_iterable(os.walk(root / top, onerror=unreadable) for top in tops):
            status = os.stat(folder)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in walked:
                passed_over[TWICE] += Path(folder).is_symlink()
                inner.clear()
                continue
            walked.add((status.st_dev, status.st_ino))
            leading = {name for name in inner if Path(folder, name).is_symlink()}
            inner[:] = sorted({*inner} - leading)
            below = os.path.join(folder, "").removeprefix(os.path.join(root, ""))  # noqa: PTH118
            hidden = any(map(is_hidden, below.split("/")))
            for name in sorted([*names, *leading]):
                if hidden or is_hidden(name):
                    passed_over[HIDDEN] += 1
                else:
                    (links if name in leading else files).append(below + name)
        if not follow_links:
            passed_over[LINK] += len(links)
            break
    return files, +passed_over


def media_of(
    files: Iterable[str], modality: Modality | None, passed_over: Counter[str], *, either: bool = False
) -> dict[str, Modality]:
    """Of some files the media, and with a modality those of it alone; counts the others in `passed_over`.

    With `either`, or where no file's extension stands for the modality, files that may be of it count: sounds in .mp4.
    """
    kinds = {file: modality_of(PurePosixPath(file)) for file in files}
    if modality is not None and (either or modality not in kinds.values()):
        kinds |= {file: modality for file in kinds if may_be(PurePosixPath(file), modality)}
    passed_over.update(kind or UNKNOWN for kind in kinds.values() if kind is None or modality not in (None, kind))
    return {file: kind for file, kind in kinds.items() if kind and modality in (None, kind)}
