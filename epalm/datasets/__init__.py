"""Data sets: from what the user types for `--data` to samples. One file per form."""

from dataclasses import replace
from pathlib import Path

from epalm.datasets.folder import read_folder
from epalm.datasets.generic import read_samples
from epalm.datasets.shards import find_shards
from epalm.datasets.webdataset import read_shards
from epalm.errors import UsageError
from epalm.samples import Dataset, Modality

PLAYGROUND = "playground"
PLAYGROUND_ROOT = Path(".epalm/playground")
_FORMS = "a .jsonl or .csv file of samples, a folder of media or tar shards, shards, or 'playground'"


def load_dataset(spec: str, modality: Modality | None = None) -> Dataset:
    """Read the data set that `spec` names, keeping only the samples of `modality` where one is given.

    `spec` is "playground" (drawn on first use), a folder of media or of tar shards, shards (`train-{000..009}.tar`,
    `shards/*.tar`), or a `.jsonl` or `.csv` file, whose media paths are relative to its folder, or to the folder after
    a colon: `samples.jsonl:/data/images`.

    Raises:
        UsageError: there is no such data set, it is malformed, or it has nothing of that modality.
    """
    if spec == PLAYGROUND:
        return _playground(modality)
    shards = find_shards(spec)
    path, root = (Path(spec), None) if shards else _split_root(spec)
    if shards:
        dataset = read_shards(spec, *shards)
    elif path.is_dir():
        dataset = read_folder(spec, path)
    elif path.suffix.lower() in (".jsonl", ".csv"):
        dataset = Dataset(spec, root or path.parent, read_samples(path))
    else:
        state = "is of no form that can be read" if path.exists() else "does not exist"
        raise UsageError(f"data {spec!r} {state}", hint=f"--data takes {_FORMS}")
    if modality is None:
        return dataset
    kept = tuple(sample for sample in dataset.samples if sample.modality == modality)
    if not kept:
        there = ", ".join(sorted({sample.modality for sample in dataset.samples})) or "nothing"
        raise UsageError(f"data {spec!r} has no {modality} media; it has {there}", hint="choose another --modality")
    return replace(dataset, samples=kept)


def _playground(modality: Modality | None) -> Dataset:
    from epalm.playground.generate import generate_playground

    if modality is None:
        raise UsageError("the playground has three modalities", hint="add --modality image, video or audio")
    root = generate_playground(PLAYGROUND_ROOT / modality, modality)
    return Dataset(PLAYGROUND, root, read_samples(root / "samples.jsonl"))


def _split_root(spec: str) -> tuple[Path, Path | None]:
    file, colon, root = spec.rpartition(":")
    if colon and not Path(spec).exists():
        if not Path(root).is_dir():
            raise UsageError(f"{root!r}, the data root in --data {spec!r}, is not a folder", hint="give FILE:/root")
        return Path(file), Path(root)
    return Path(spec), None
