"""A folder as a data set: its `samples.jsonl` or `samples.csv`, else every media file in it, else its tar shards.

Beside a medium, a text of the same stem (cat.jpg, cat.txt) holds its captions, one a line.
"""

import os
from pathlib import Path, PurePosixPath

from epalm.console import say, warn
from epalm.datasets.extensions import EXTENSIONS, is_shard, modality_of
from epalm.datasets.generic import read_samples
from epalm.datasets.paths import resolve_media
from epalm.datasets.splits import split_of_folder
from epalm.datasets.text_file import reading
from epalm.datasets.webdataset import read_shards
from epalm.errors import MediaError, UsageError
from epalm.samples import Dataset, Sample, Task

_LONGEST_TEXT = 1 << 20  # bytes of the captions of one medium


def read_folder(spec: str, folder: Path) -> Dataset:
    """The samples that the folder's own file lists, or one caption sample per media file, in name order.

    Where there are captions, the split is the first of a medium's folders that is called train, val or test, or else
    "train". Media without captions are of split "test": they can be extracted and decoded, not trained on or scored.
    In a folder without media files, its tar shards are read.

    Raises:
        UsageError: the folder holds none of these, or shards or captions that cannot be read.
    """
    for name in ("samples.jsonl", "samples.csv"):
        if (folder / name).is_file():
            return Dataset(spec, folder, read_samples(folder / name))
    samples: list[Sample] = []
    shards: list[str] = []
    for parent, children, files in os.walk(folder):
        children[:] = sorted(child for child in children if not child.startswith("."))
        texts = {name for name in files if name.endswith(".txt")}
        for name in sorted(files):
            path = Path(parent) / name
            kind = modality_of(path)
            media = path.relative_to(folder).as_posix()
            if kind is not None:
                captions = _captions(path.with_suffix(".txt")) if f"{path.stem}.txt" in texts else ()
                split = _split_of(PurePosixPath(media)) if captions else "test"
                samples.append(Sample(media, kind, media, Task.CAPTION, split, references=captions))
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
    if with_captions := sum(bool(sample.references) for sample in samples):
        say(f"data {spec!r}: {with_captions:,} of {len(samples):,} media have captions, in a .txt beside them")
    return Dataset(spec, folder, tuple(samples))


def _captions(path: Path) -> tuple[str, ...]:
    with reading(path):
        if not path.is_file() or path.stat().st_size > _LONGEST_TEXT:
            raise UsageError(f"{path} is no text of captions, which has {_LONGEST_TEXT:,} bytes at most")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    captions = tuple(filter(None, map(str.strip, lines)))
    if not captions:
        raise UsageError(f"{path} holds no caption", hint="write one caption a line, or remove the file")
    return captions


def _split_of(media: PurePosixPath) -> str:
    return next(filter(None, map(split_of_folder, media.parts[:-1])), "train")


def _confined(folder: Path, shard: str) -> Path:
    """The shard's path; one that is a link out of the folder has to be asked for by name."""
    try:
        resolve_media(folder, shard)
    except MediaError as error:
        raise UsageError(error.message, hint=f"name the shards themselves: --data '{folder}/*.tar'") from error
    return folder / shard
