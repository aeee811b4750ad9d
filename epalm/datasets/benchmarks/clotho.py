"""Clotho: the official CSVs of columns file_name, caption_1 to caption_5 (zenodo.org/records/4783391)."""

from epalm.datasets.benchmark import Benchmark, Files
from epalm.samples import Modality, Task

CLOTHO = Benchmark("clotho", "Clotho", "https://zenodo.org/records/4783391", Modality.AUDIO, Task.CAPTION)
_CAPTIONS = [f"caption_{number}" for number in range(1, 6)]


@CLOTHO.form(
    "official: a CSV of each split",
    {"captions": "clotho_captions_{}.csv"},
    {"clips": ("{}", "audio/{}", "clotho_audio_{}/{}", "clotho_audio_{}")},
    {"train": "development", "val": "validation", "test": "evaluation"},
)
def _official(files: Files) -> None:
    for entry in files.csv("captions"):
        name = entry.name("file_name")
        files.add_captions(entry, name, f"{files.folder(entry.split)}/{name}", [entry.text(key) for key in _CAPTIONS])
