"""A folder as a data set: its file of samples (`samples.jsonl`, …), else every media file in it, else its tar shards.

Beside a medium, a text of the same stem (cat.jpg, cat.txt) holds its captions, one a line.
"""

from pathlib import Path, PurePosixPath

from epalm.console import say, warn
from epalm.datasets.generic import SAMPLE_FILES, read_samples
from epalm.datasets.listing import LINK, MODALITIES, UNKNOWN, Listing, in_words, is_shard, media_of, split_of_folder
from epalm.datasets.paths import MediaRoot
from epalm.datasets.text_file import reading
from epalm.datasets.webdataset import read_shards
from epalm.errors import MediaError, UsageError
from epalm.samples import Dataset, Modality, Sample, Task

_LONGEST_TEXT = 1 << 20  # bytes of the captions of one medium


def read_folder(spec: str, folder: Path, modality: Modality | None = None, *, follow_links: bool = False) -> Dataset:
    """The samples that the folder's own file lists, or one caption sample per media file, in name order.

    Where there are captions, the split is the first of a medium's folders that is called train, val or test, or else
    "train". Media without captions are of split "test": they can be extracted and decoded, not trained on or scored.
    In a folder without media files, its tar shards are read. What is passed over is counted in the data set.

    Raises:
        UsageError: the folder holds none of these, or shards or captions that cannot be read.
    """
    for extension in SAMPLE_FILES:
        if (own := folder / f"samples{extension}").is_file():
            return Dataset(spec, folder, read_samples(own))
    listing = Listing(folder, follow_links=follow_links)
    passed_over = listing.passed_over
    texts = {file for file in listing.files if file.endswith(".txt")}
    shards = [file for file in listing.files if is_shard(file)]
    others = (file for file in listing.files if file not in texts and not is_shard(file))
    media = media_of(others, modality, passed_over)
    if shards and not media:
        return read_shards(spec, folder, [_confined(folder, shard, follow_links) for shard in shards], modality)
    samples: list[Sample] = []
    used: set[str] = set()
    for name, kind in media.items():
        text = str(PurePosixPath(name).with_suffix(".txt"))
        captions = _captions(folder / text) if text in texts else ()
        used |= {text} & texts
        split = next(filter(None, map(split_of_folder, name.split("/")[:-1])), "train") if captions else "test"
        samples.append(Sample(name, kind, name, Task.CAPTION, split, references=captions))
    passed_over.update({UNKNOWN: len(texts - used), "tar shard": len(shards)})
    if samples and shards:
        warn(f"data {spec!r}: {len(shards):,} tar shards are left alone, as the folder holds media files as well")
    if not samples and (+passed_over).keys().isdisjoint(Modality):
        counts = f"; {in_words(+passed_over)}" if +passed_over else ""
        linked = "--follow-links follows links; " if passed_over[LINK] else ""
        known = " ".join(sorted(MODALITIES))
        raise UsageError(
            f"folder {folder} holds no media file and no tar shard{counts}",
            hint=f"{linked}known extensions: {known} .tar",
        )
    if with_captions := sum(bool(sample.references) for sample in samples):
        say(f"data {spec!r}: {with_captions:,} of {len(samples):,} media have captions, in a .txt beside them")
    return Dataset(spec, folder, tuple(samples), passed_over=dict(+passed_over))


def _captions(path: Path) -> tuple[str, ...]:
    with reading(path):
        if path.stat().st_size > _LONGEST_TEXT:
            raise UsageError(f"{path} is no text of captions, which has {_LONGEST_TEXT:,} bytes at most")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    captions = tuple(filter(None, map(str.strip, lines)))
    if not captions:
        raise UsageError(f"{path} holds no caption", hint="write one caption a line, or remove the file")
    return captions


def _confined(folder: Path, shard: str, follow_links: bool) -> Path:
    """The shard's path; one that is a link out of the folder has to be asked for."""
    try:
        MediaRoot(folder, follow_links=follow_links).locate(shard)
    except MediaError as error:
        hint = f"--follow-links, or name the shards themselves: --data '{folder}/*.tar'"
        raise UsageError(error.message, hint=hint) from error
    return folder / shard
