"""Data sets: from what the user types for `--data` to samples. One file per form; folders are read here."""

import atexit
import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from epalm import PLAYGROUND
from epalm.datasets.benchmarks import parse_spec
from epalm.datasets.generic import SAMPLE_FILES, read_samples
from epalm.datasets.listing import MODALITIES, UNKNOWN, is_shard, list_files, media_of, passed_over_in_words, split_of
from epalm.datasets.text_file import reading
from epalm.datasets.webdataset import find_shards, read_shards
from epalm.errors import MediaError, UsageError
from epalm.media import MediaRoot
from epalm.samples import LINKS, Dataset, Modality, Sample, Task

if TYPE_CHECKING:
    import pandas as pd

PLAYGROUND_ROOT = Path(".epalm/playground")
_FORMS = (
    "a .jsonl, .json, .csv or .tsv file of samples, a folder of media or tar shards, shards, NAME:/root of a benchmark "
    "(epalm datasets lists them) or 'playground'"
)


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Without Python's search for reference cycles: samples and plans have none, and walking a million takes long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@without_cycle_search()
def load_dataset(
    spec: str, modality: Modality | None = None, *, media_here: bool = True, write: bool = True
) -> Dataset:
    """Read the data set that `spec` names, keeping only the samples of `modality` where one is given.

    `spec` is "playground" (drawn on first use), a folder of media or of tar shards, shards (`train-{000..009}.tar`,
    `shards/*.tar`), a benchmark and the folder of its files (`vqa-v2:/data/vqa`), or a file of samples (`.jsonl`,
    `.json`, `.csv`, `.tsv`), whose media paths are relative to its folder, or to the folder after a colon:
    `samples.jsonl:/data/images`. Where the media are not needed, `media_here=False` lets that folder be gone.
    Before any of them, `follow-links:` lets links lead out of the folder of media.
    With `write=False`, a playground that is not there yet is drawn into a temporary folder, gone with the process.

    Raises:
        UsageError: there is no such data set, it is malformed, or it has nothing of that modality.
    """
    plain = spec.removeprefix(LINKS)
    follow_links = plain != spec
    if plain == PLAYGROUND:
        dataset = _read_playground(modality, write)
    elif named := parse_spec(plain):
        benchmark, form, root = named
        dataset = benchmark.read(root, form, media_here=media_here, follow_links=follow_links)
    elif shards := find_shards(plain):
        dataset = read_shards(plain, *shards, modality)
    else:
        dataset = _read_path(plain, modality, media_here, follow_links)
    samples = tuple(sample for sample in dataset.samples if modality in (None, sample.modality))
    if not samples:
        others = {reason for reason in dataset.passed_over if reason in set(Modality)}
        there = ", ".join(sorted({sample.modality for sample in dataset.samples} | others))
        if there:
            raise UsageError(f"data {plain!r} has no {modality} media; it has {there}", hint="choose another modality")
        counts = f"; {passed_over_in_words(dataset.passed_over)}" if dataset.passed_over else ""
        hint = f"known extensions: {' '.join(sorted(MODALITIES))} .tar"
        raise UsageError(f"data {plain!r} holds no media file and no tar shard with one{counts}", hint=hint)
    return replace(dataset, spec=spec, samples=samples, follow_links=follow_links)


def _read_playground(modality: Modality | None, write: bool) -> Dataset:
    from epalm.playground.generate import generate_playground, is_drawn

    if modality is None:
        raise UsageError("the playground has three modalities", hint="add --modality image, video or audio")
    root = PLAYGROUND_ROOT / modality
    if not write and not is_drawn(root, modality):
        folder = tempfile.mkdtemp(prefix="epalm-playground-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        root = Path(folder) / modality
    root = generate_playground(root, modality)
    return Dataset(PLAYGROUND, root, read_samples(root / "samples.jsonl"))


def _read_path(spec: str, modality: Modality | None, media_here: bool, follow_links: bool) -> Dataset:
    path, root = _split_root(spec)
    if root and media_here and not root.is_dir():
        raise UsageError(f"{str(root)!r}, the data root in --data {spec!r}, is not a folder", hint="give FILE:/root")
    if path.is_dir():
        return _read_folder(spec, path, modality, follow_links)
    if path.suffix.lower() in SAMPLE_FILES:
        return Dataset(spec, root or path.parent, read_samples(path, root))
    state = "is of no form that can be read" if path.exists() else "does not exist"
    raise UsageError(f"data {spec!r} {state}", hint=f"--data takes {_FORMS}")


def _read_folder(spec: str, folder: Path, modality: Modality | None, follow_links: bool) -> Dataset:
    """The samples that the folder's own file lists, or one caption sample per media file, in name order, or its shards.

    Beside a medium, a text of the same stem (cat.jpg, cat.txt) holds its captions, one a line. Where there are any, the
    split is the first of a medium's folders that is called train, val or test, or else "train". Media without captions
    are of split "test": they can be extracted and decoded, not trained on or scored.
    """
    for extension in SAMPLE_FILES:
        if (own := folder / f"samples{extension}").is_file():
            return Dataset(spec, folder, read_samples(own))
    files, passed_over = list_files(folder, follow_links=follow_links)
    texts, shards = {file for file in files if file.endswith(".txt")}, [file for file in files if is_shard(file)]
    media = media_of((file for file in files if file not in texts and not is_shard(file)), modality, passed_over)
    if shards and not media:
        root = MediaRoot(folder, follow_links=follow_links)
        for shard in shards:
            root.locate(shard)  # refuses a link that leads out
        return read_shards(spec, folder, [folder / shard for shard in shards], modality)
    samples, used = list[Sample](), set[str]()
    for name, kind in media.items():
        captions, text = tuple[str, ...](), f"{name.rpartition('.')[0]}.txt"
        if text in texts:
            with reading(folder / text):
                lines = (folder / text).read_text(encoding="utf-8-sig").splitlines()
            captions = tuple(filter(None, map(str.strip, lines)))
            used.add(text)
        split = split_of(name.split("/")[:-1]) if captions else "test"
        samples.append(Sample(name, kind, name, Task.CAPTION, split, references=captions))
    passed_over += Counter({UNKNOWN: len(texts - used), "tar shards": len(shards)})
    return Dataset(spec, folder, tuple(samples), passed_over=dict(passed_over))


def _split_root(spec: str) -> tuple[Path, Path | None]:
    """(file or folder, root) of FILE:/root."""
    file, colon, root = spec.rpartition(":")
    return (Path(file), Path(root)) if colon and not Path(spec).exists() else (Path(spec), None)


def from_anywhere(spec: str) -> str:
    """The same data set as any working folder may name it: what tells it from others that are called alike."""
    if spec.startswith(LINKS):
        return LINKS + from_anywhere(spec.removeprefix(LINKS))
    if spec == PLAYGROUND:
        return spec
    if named := parse_spec(spec):
        return f"{spec.partition(':')[0]}:{named[2].absolute()}"
    if is_shard(spec) or Path(spec).exists():
        return os.path.abspath(spec)  # noqa: PTH100 (patterns are no paths, and Path keeps "..")
    file, root = _split_root(spec)
    return f"{file.absolute()}:{root.absolute()}" if root and file.exists() else spec


def short_name(spec: str) -> str:
    """What a data set is called, without where it lies."""
    spec = spec.removeprefix(LINKS)
    return spec.partition(":")[0] if parse_spec(spec) else _split_root(spec)[0].name


def count_splits(dataset: Dataset) -> "pd.DataFrame":
    """Of each split: name, samples, with_answers (or captions), media, media_there (those with a file)."""
    frame = dataset.frame()
    frame["with_answers"] = frame[["answers", "references", "unanswerable"]].astype(bool).any(axis=1)
    there = {media: _is_there(dataset, media) for media in frame["media"].unique()}
    frame["media_there"] = frame["media"].where(frame["media"].map(there).astype(bool))
    counts = frame.groupby("split", sort=False).agg(
        samples=("id", "size"),
        with_answers=("with_answers", "sum"),
        media=("media", "nunique"),
        media_there=("media_there", "nunique"),
    )
    return counts.reset_index(names="name")


def _is_there(dataset: Dataset, media: str) -> bool:
    try:
        return dataset.locate(media).status() is not None
    except MediaError:
        return False
