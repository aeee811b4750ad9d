"""Data sets: from what the user types for `--data` to samples. One file per form."""

import atexit
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from epalm.datasets.benchmarks import parse_spec, read_benchmark
from epalm.datasets.folder import read_folder
from epalm.datasets.generic import SAMPLE_FILES, read_samples, without_cycles
from epalm.datasets.listing import is_shard
from epalm.datasets.webdataset import find_shards, read_shards
from epalm.errors import MediaError, UsageError
from epalm.samples import LINKS, Dataset, Modality

if TYPE_CHECKING:
    import pandas as pd

PLAYGROUND = "playground"
PLAYGROUND_ROOT = Path(".epalm/playground")
_FORMS = (
    "a .jsonl, .json, .csv or .tsv file of samples, a folder of media or tar shards, shards, NAME:/root of a benchmark "
    "(epalm datasets lists them) or 'playground'"
)


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
    with without_cycles():
        dataset = _load(plain, modality, media_here=media_here, write=write, follow_links=plain != spec)
    return replace(dataset, spec=spec, follow_links=plain != spec)


def _load(spec: str, modality: Modality | None, *, media_here: bool, write: bool, follow_links: bool) -> Dataset:
    if spec == PLAYGROUND:
        return _playground(modality, write)
    if benchmark := read_benchmark(spec, media_here=media_here, follow_links=follow_links):
        return _of_modality(benchmark, modality)
    shards = find_shards(spec)
    path, root = (Path(spec), None) if shards else _split_root(spec, media_here)
    if shards:
        dataset = read_shards(spec, *shards, modality)
    elif path.is_dir():
        dataset = read_folder(spec, path, modality, follow_links=follow_links)
    elif path.suffix.lower() in SAMPLE_FILES:
        dataset = Dataset(spec, root or path.parent, read_samples(path, root))
    else:
        state = "is of no form that can be read" if path.exists() else "does not exist"
        raise UsageError(f"data {spec!r} {state}", hint=f"--data takes {_FORMS}")
    return _of_modality(dataset, modality)


def _of_modality(dataset: Dataset, modality: Modality | None) -> Dataset:
    if modality is None:
        return dataset
    kept = tuple(sample for sample in dataset.samples if sample.modality == modality)
    if not kept:
        others = {reason for reason in dataset.passed_over if reason in set(Modality)}
        there = ", ".join(sorted({sample.modality for sample in dataset.samples} | others)) or "nothing"
        raise UsageError(
            f"data {dataset.spec!r} has no {modality} media; it has {there}", hint="choose another --modality"
        )
    return replace(dataset, samples=kept)


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
    file, root = _split_root(spec, media_here=False)
    return f"{file.absolute()}:{root.absolute()}" if root and file.exists() else spec


def short_name(spec: str) -> str:
    """What a data set is called, without where it lies."""
    return spec.partition(":")[0] if parse_spec(spec) else _split_root(spec, media_here=False)[0].name


def _playground(modality: Modality | None, write: bool) -> Dataset:
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


def _split_root(spec: str, media_here: bool) -> tuple[Path, Path | None]:
    file, colon, root = spec.rpartition(":")
    if colon and not Path(spec).exists():
        if media_here and not Path(root).is_dir():
            raise UsageError(f"{root!r}, the data root in --data {spec!r}, is not a folder", hint="give FILE:/root")
        return Path(file), Path(root)
    return Path(spec), None
