"""COCO captions: Karpathy's split of the 2014 pictures, or the official caption files of 2014 or 2017.

Karpathy: {"images": [{"filepath", "filename", "split", "cocoid", "sentences": [{"raw"}, …]}, …]}, where what he calls
restval is trained on as well. Official: {"images": [{"id", "file_name"}, …], "annotations": [{"image_id", "caption"},
…]} (cocodataset.org/#format-data).

Other benchmarks ask about COCO's pictures as well: how their files are called, and in which folders they lie, is here.
"""

from epalm.datasets.benchmark import Benchmark, Files
from epalm.datasets.entries import Entry, json_entries
from epalm.samples import Modality, Task

COCO = Benchmark(
    "coco-caption",
    "COCO captions",
    "https://cs.stanford.edu/people/karpathy/deepimagesent/ and https://cocodataset.org/#download",
    Modality.IMAGE,
    Task.CAPTION,
    ("image_id", "caption", int),  # cocodataset.org/#format-results
)
COCO_FOLDERS = [above + "{}" for above in ("", "images/", "coco/", "coco/images/", "COCO/", "COCO/images/")]
_MOST_IMAGES = 10**12  # their names have twelve digits
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_SUBSETS = {"train2014": "train2014", "val2014": "val2014"}


def coco_picture(files: Files, entry: Entry) -> str:
    """Where the picture of an `image_id` lies: COCO_train2014_000000000009.jpg; from 2017 on without the prefix."""
    folder = files.folder(entry.split)
    prefix = "" if folder.endswith("2017") else f"COCO_{folder.rpartition('/')[2]}_"
    return f"{folder}/{prefix}{entry.number_in('image_id', _MOST_IMAGES):012}.jpg"


@COCO.form(
    "karpathy: Karpathy's split",
    {"captions": ("dataset_coco.json", "COCO/dataset_coco.json", "caption_datasets/dataset_coco.json")},
    {"images": COCO_FOLDERS},
    _SUBSETS,
)
def _karpathy(files: Files) -> None:
    for entry in files.json("captions", "images"):
        picture = f"{files.folder(entry.choice('filepath', _SUBSETS))}/{entry.name('filename')}"
        captions, split = entry.texts("sentences", "raw"), entry.choice("split", _SPLITS)
        files.add_captions(entry, entry.name("cocoid"), picture, captions, split)


def _official(files: Files) -> None:
    for split, path in files.paths("captions"):
        images = json_entries(path, split, "images")
        names = {image.name("id"): f"{files.folder(split)}/{image.name('file_name')}" for image in images}
        for entry in json_entries(path, split, "annotations"):
            image = entry.name("image_id")
            if image not in names:
                raise entry.fault(f"image_id {image} is not among the file's images", "download the file again")
            files.add_captions(entry, image, names[image], [entry.text("caption")])


for _year in ("2014", "2017"):
    COCO.form(
        f"official-{_year}: the official captions of {_year}",
        {"captions": f"captions_{{}}{_year}.json"},
        {"images": [folder + _year for folder in COCO_FOLDERS]},
        ("train", "val"),
    )(_official)
