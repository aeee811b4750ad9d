"""A folder as a data set: its `samples.jsonl` or `samples.csv`, else every media file in it, else its tar shards."""

import os
from pathlib import Path

from epalm.console import warn
from epalm.datasets.extensions import EXTENSIONS, is_shard, modality_of
from epalm.datasets.generic import read_samples
from epalm.datasets.paths import resolve_media
from epalm.datasets.webdataset import read_shards
from epalm.errors import MediaError, UsageError
from epalm.samples import Dataset, Sample, Task


def read_folder(spec: str, folder: Path) -> Dataset:
    """The samples that the folder's own file lists, or one caption sample per media file, in name order.

    Such samples have no references: they can be extracted and decoded, not trained on or scored. In a folder without
    media files, its tar shards are read.

    Raises:
        UsageError: the folder holds none of these, or shards that cannot be read.
    """
    for name in ("samples.jsonl", "samples.csv"):
        if (folder / name).is_file():
            return Dataset(spec, folder, read_samples(folder / name))
    samples, shards = [], []
    for parent, children, files in os.walk(folder):
        children[:] = sorted(child for child in children if not child.startswith("."))
        for name in sorted(files):
            path = Path(parent) / name
            kind = modality_of(path)
            media = path.relative_to(folder).as_posix()
            if kind is not None:
                samples.append(Sample(media, kind, media, Task.CAPTION, "test"))
            elif is_shard(name) and not name.startswith("."):
                shards.append(media)
    if samples and shards:
        warn(f"data {spec!r}: {len(shards):,} tar shards are left alone, as the folder holds media files as well")
    elif shards:
        return read_shards(spec, folder, [_confined(folder, shard) for shard in shards])
    if not samples:
        known = " ".join(sorted(set().union(*EXTENSIONS.values())))
        raise UsageError(
            f"folder {folder} holds no media file and no tar shard", hint=f"known extensions: {known} .tar"
        )
    return Dataset(spec, folder, tuple(samples))


def _confined(folder: Path, shard: str) -> Path:
    """The shard's path; one that is a link out of the folder has to be asked for by name."""
    try:
        resolve_media(folder, shard)
    except MediaError as error:
        raise UsageError(error.message, hint=f"name the shards themselves: --data '{folder}/*.tar'") from error
    return folder / shard
