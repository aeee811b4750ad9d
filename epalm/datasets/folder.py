"""A folder as a data set: its `samples.jsonl` or `samples.csv`, or else every media file in it."""

import os
from pathlib import Path

from epalm.datasets.generic import read_samples
from epalm.errors import UsageError
from epalm.samples import Dataset, Modality, Sample, Task

EXTENSIONS = {
    Modality.IMAGE: {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"},
    Modality.VIDEO: {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ogv"},
    Modality.AUDIO: {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif"},
}


def modality_of(path: Path) -> Modality | None:
    """The modality that a file's extension stands for, or None."""
    suffix = path.suffix.lower()
    return next((modality for modality, known in EXTENSIONS.items() if suffix in known), None)


def read_folder(spec: str, folder: Path) -> Dataset:
    """The samples that the folder's own file lists, or one caption sample per media file, in name order.

    Such samples have no references: they can be extracted and decoded, not trained on or scored.

    Raises:
        UsageError: the folder holds neither.
    """
    for name in ("samples.jsonl", "samples.csv"):
        if (folder / name).is_file():
            return Dataset(spec, folder, read_samples(folder / name))
    samples = []
    for parent, children, files in os.walk(folder):
        children[:] = sorted(child for child in children if not child.startswith("."))
        for name in sorted(files):
            path = Path(parent) / name
            modality = modality_of(path)
            if modality is not None:
                media = path.relative_to(folder).as_posix()
                samples.append(Sample(media, modality, media, Task.CAPTION, "test"))
    if not samples:
        known = " ".join(sorted(set().union(*EXTENSIONS.values())))
        raise UsageError(f"folder {folder} holds no media file", hint=f"known extensions: {known}")
    return Dataset(spec, folder, tuple(samples))
