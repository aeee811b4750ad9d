"""Clotho: the official CSVs of columns file_name, caption_1 to caption_5 (zenodo.org/records/4783391)."""

from epalm.datasets.benchmark import Benchmark, form
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_NAMES = {"train": "development", "val": "validation", "test": "evaluation"}
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


@form(
    "official",
    "a CSV of each split",
    {"captions": {split: f"clotho_captions_{name}.csv" for split, name in _NAMES.items()}},
    {
        "clips": {
            split: (name, f"audio/{name}", f"clotho_audio_{name}/{name}", f"clotho_audio_{name}")
            for split, name in _NAMES.items()
        }
    },
)
def _official(files: Files) -> None:
    for entry in files.csv("captions", "file_name", *_CAPTIONS):
        name = entry.name("file_name")
        captions = [entry.text(key) for key in _CAPTIONS]
        files.add_captions(entry, name, f"{files.folder(entry.split)}/{name}", captions, whole=True)


BENCHMARK = Benchmark(
    "clotho",
    "Clotho: audio captions",
    "https://zenodo.org/records/4783391",
    Modality.AUDIO,
    Task.CAPTION,
    "development is train, validation is val, evaluation is test",
    (_official,),
)
