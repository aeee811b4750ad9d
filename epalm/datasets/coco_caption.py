"""COCO captions: Karpathy's split of the 2014 pictures, or the official caption files of 2014 or 2017.

Karpathy: {"images": [{"filepath", "filename", "split", "cocoid", "sentences": [{"raw"}, …]}, …]}, where what he calls
restval is trained on as well. Official: {"images": [{"id", "file_name"}, …], "annotations": [{"image_id", "caption"},
…]} (cocodataset.org/#format-data).
"""

from collections.abc import Iterator

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.captions import Captions
from epalm.datasets.coco_images import coco_folder
from epalm.datasets.entries import Entry, json_entries
from epalm.samples import Modality, Sample, Task

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_SUBSETS = ("train2014", "val2014")


def _read_karpathy(files: Files) -> Iterator[tuple[Entry, Sample]]:
    folders = {subset: files.folder(subset) for subset in _SUBSETS}
    for _, path in files.read("captions"):
        for entry in json_entries(path, "images"):
            subset, split = entry.get("filepath"), entry.get("split")
            if subset not in _SUBSETS:
                raise entry.fault(f"'filepath' is {subset!r}, not {' or '.join(_SUBSETS)}")
            if split not in _SPLITS:
                raise entry.fault(f"'split' is {split!r}, not one of {', '.join(_SPLITS)}")
            yield (
                entry,
                Sample(
                    entry.name("cocoid"),
                    Modality.IMAGE,
                    f"{folders[subset]}/{entry.name('filename')}",
                    Task.CAPTION,
                    _SPLITS[split],
                    references=tuple(filter(None, entry.texts("sentences", "raw"))),
                ),
            )


def _read_official(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("captions"):
        folder, names = files.folder(split), dict[str, str]()
        captions = Captions(split, Modality.IMAGE, files.shared)
        waiting: list[Entry] = []  # captions that come before the pictures' names
        for entry in json_entries(path, "images", "annotations"):
            if entry.section == "images":
                names[entry.name("id")] = f"{folder}/{entry.name('file_name')}"
            else:
                waiting.append(entry)
        for entry in waiting:
            image = entry.name("image_id")
            if image not in names:
                raise entry.fault(f"image_id {image} is not among the file's images", hint="download the file again")
            captions.add(entry, image, names[image], entry.text("caption"))
        yield from captions.samples()


def _official(year: str) -> Form:
    subsets = {"train": f"train{year}", "val": f"val{year}"}
    return Form(
        f"official-{year}",
        f"the official captions of {year}",
        tuple(Part(split, "captions", (f"captions_{subset}.json",)) for split, subset in subsets.items()),
        tuple(coco_folder(split, subset) for split, subset in subsets.items()),
        _read_official,
    )


_KARPATHY = Form(
    "karpathy",
    "Karpathy's split",
    (Part("", "captions", ("dataset_coco.json", "COCO/dataset_coco.json", "caption_datasets/dataset_coco.json")),),
    tuple(coco_folder(subset, subset) for subset in _SUBSETS),
    _read_karpathy,
)
BENCHMARK = Benchmark(
    "coco-caption",
    "COCO captions: image captions",
    "https://cs.stanford.edu/people/karpathy/deepimagesent/ and https://cocodataset.org/#download",
    Modality.IMAGE,
    Task.CAPTION,
    "karpathy: train (restval as well), val, test; official: train, val",
    (_KARPATHY, _official("2014"), _official("2017")),
)
