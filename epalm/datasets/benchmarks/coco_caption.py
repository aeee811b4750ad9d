"""COCO captions: Karpathy's split of the 2014 pictures, or the official caption files of 2014 or 2017.

Karpathy: {"images": [{"filepath", "filename", "split", "cocoid", "sentences": [{"raw"}, …]}, …]}, where what he calls
restval is trained on as well. Official: {"images": [{"id", "file_name"}, …], "annotations": [{"image_id", "caption"},
…]} (cocodataset.org/#format-data).

Other benchmarks ask about COCO's pictures as well: how their files are called, and in which folders they lie, is here.
"""

import re

from epalm.datasets.benchmark import Benchmark, Form, form
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_ABOVE = ("", "images/", "coco/", "coco/images/", "COCO/", "COCO/images/")
_MOST_IMAGES = 10**12  # their names have twelve digits
_IMAGE_ID = re.compile(r"COCO_(train2014|val2014)_\d{12}")
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_SUBSETS = {"train2014": "train2014", "val2014": "val2014"}


def coco_folders(subsets: dict[str, str]) -> dict[str, dict[str, list[str]]]:
    """The folders of each split's pictures, in one of COCO's subsets such as train2014."""
    return {"images": {split: [above + subset for above in _ABOVE] for split, subset in subsets.items()}}


def coco_picture(files: Files, subsets: dict[str, str], entry: Entry) -> str:
    """Where the picture of an `image_id` lies: COCO_train2014_000000000009.jpg; from 2017 on without the prefix."""
    subset = subsets[entry.split]
    prefix = "" if subset.endswith("2017") else f"COCO_{subset}_"
    return f"{files.folder(entry.split)}/{prefix}{entry.number_in('image_id', _MOST_IMAGES):012}.jpg"


def subset_of(entry: Entry, key: str) -> str:
    """The subset that an image id such as COCO_val2014_000000262148 names."""
    name = entry.name(key)
    match = _IMAGE_ID.fullmatch(name)
    if match is None:
        raise entry.fault(f"{key!r} is {name!r}, which is no image id such as COCO_val2014_000000262148")
    return match[1]


@form(
    "karpathy",
    "Karpathy's split",
    {"captions": {"": [f"{folder}dataset_coco.json" for folder in ("", "COCO/", "caption_datasets/")]}},
    coco_folders(_SUBSETS),
)
def _karpathy(files: Files) -> None:
    for entry in files.json("captions", "images"):
        picture = f"{files.folder(entry.choice('filepath', _SUBSETS))}/{entry.name('filename')}"
        captions, split = entry.texts("sentences", "raw"), entry.choice("split", _SPLITS)
        files.add_captions(entry, entry.name("cocoid"), picture, captions, split=split, whole=True)


def _official(year: str) -> Form:
    subsets = {"train": f"train{year}", "val": f"val{year}"}
    annotations = {split: f"captions_{subset}.json" for split, subset in subsets.items()}

    @form(f"official-{year}", f"the official captions of {year}", {"captions": annotations}, coco_folders(subsets))
    def official(files: Files) -> None:
        for split, path in files.paths("captions"):
            images = json_entries(path, split, "images")
            names = {image.name("id"): f"{files.folder(split)}/{image.name('file_name')}" for image in images}
            for entry in json_entries(path, split, "annotations"):
                image = entry.name("image_id")
                if image not in names:
                    raise entry.fault(f"image_id {image} is not among the file's images", "download the file again")
                files.add_captions(entry, image, names[image], [entry.text("caption")])

    return official


BENCHMARK = Benchmark(
    "coco-caption",
    "COCO captions: image captions",
    "https://cs.stanford.edu/people/karpathy/deepimagesent/ and https://cocodataset.org/#download",
    Modality.IMAGE,
    Task.CAPTION,
    "karpathy: train (restval as well), val, test; official: train, val",
    (_karpathy, _official("2014"), _official("2017")),
)
