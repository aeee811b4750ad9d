"""What a file's name says about it: its modality by its extension, and whether a system left it behind.

The one list for folders, shards and benchmarks. Nothing is opened: a wrong extension is the decoder's to notice.
"""

from pathlib import PurePath

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
# Compressed shards count as shards, to be refused by name where they are read.
_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
_LEFT_BEHIND = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"))


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
