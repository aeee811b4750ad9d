"""TextCaps: captions that read what is written in a picture.

An entry has one caption, {"image_id", "caption_str"}, and may repeat all of its picture's as "reference_strs"; those
are taken once for each picture (textvqa.org/textcaps/dataset).
"""

from collections.abc import Iterator

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.captions import Captions
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.open_images import PICTURES, picture
from epalm.samples import Modality, Sample, Task


def _read(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("captions"):
        captions = Captions(split, Modality.IMAGE, files.shared)
        whole: set[str] = set()  # pictures that have all of their captions
        for entry in json_entries(path, "data"):
            name, texts = entry.name("image_id"), list[str]()
            if split != "test" and name not in whole:
                several = "reference_strs" in entry
                texts = entry.texts("reference_strs") if several else [entry.text("caption_str")]
                if several:
                    whole.add(name)
            captions.add(entry, name, picture(files, split, entry), *texts)
        yield from captions.samples()


BENCHMARK = Benchmark(
    "textcaps",
    "TextCaps: captions that read what is written in a picture",
    "https://textvqa.org/textcaps/dataset/",
    Modality.IMAGE,
    Task.CAPTION,
    "train, val, test (without captions)",
    (
        Form(
            "official",
            "a file of captions for each split",
            tuple(Part(split, "captions", (f"TextCaps_0.1_{split}.json",)) for split in ("train", "val", "test")),
            PICTURES,
            _read,
        ),
    ),
)
