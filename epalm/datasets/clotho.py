"""Clotho: the official CSVs of columns file_name, caption_1 to caption_5 (zenodo.org/records/4783391)."""

from collections.abc import Iterator

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.entries import Entry, csv_entries
from epalm.samples import Modality, Sample, Task

_SPLITS = {"train": "development", "val": "validation", "test": "evaluation"}
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def _read(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("captions"):
        folder = files.folder(split)
        for entry in csv_entries(path, "file_name", *_CAPTIONS):
            name = entry.name("file_name")
            references = tuple(entry.text(key) for key in _CAPTIONS)
            yield entry, Sample(name, Modality.AUDIO, f"{folder}/{name}", Task.CAPTION, split, references=references)


BENCHMARK = Benchmark(
    "clotho",
    "Clotho: audio captions",
    "https://zenodo.org/records/4783391",
    Modality.AUDIO,
    Task.CAPTION,
    "development is train, validation is val, evaluation is test",
    (
        Form(
            "official",
            "a CSV of each split",
            tuple(Part(split, "captions", (f"clotho_captions_{name}.csv",)) for split, name in _SPLITS.items()),
            tuple(
                Part(split, "clips", (name, f"audio/{name}", f"clotho_audio_{name}/{name}", f"clotho_audio_{name}"))
                for split, name in _SPLITS.items()
            ),
            _read,
        ),
    ),
)
