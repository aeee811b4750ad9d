"""What a file's extension says about it. Nothing is opened, so a wrong extension is the decoder's to notice."""

from pathlib import PurePath

from epalm.samples import Modality

EXTENSIONS = {
    Modality.IMAGE: {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"},
    Modality.VIDEO: {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ogv"},
    Modality.AUDIO: {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif"},
}
MODALITIES = {extension: modality for modality, known in EXTENSIONS.items() for extension in known}
# Compressed shards count as shards, to be refused by name where they are read.
_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")


def modality_of(path: PurePath) -> Modality | None:
    """The modality that a file's extension stands for, or None."""
    return MODALITIES.get(path.suffix.lower())


def is_shard(name: str) -> bool:
    """Whether a file of that name is a tar, compressed or not."""
    return name.lower().endswith(_SHARDS)
