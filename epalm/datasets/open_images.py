"""The pictures of TextVQA and TextCaps, and the form of their files: {"data": [{"image_id", "set_name", …}, …]}.

textvqa.org/dataset: the pictures of train and val lie in `train_images`, those of test in `test_images`.
"""

from epalm.datasets.benchmark import Files, Part
from epalm.datasets.entries import Entry

_TRAIN = ("train_images", "images/train_images", "train_val_images/train_images", "images")
PICTURES = (
    Part("train", "images", _TRAIN),
    Part("val", "images", _TRAIN),
    Part("test", "images", ("test_images", "images/test_images", "images")),
)


def picture(files: Files, split: str, entry: Entry) -> str:
    """Where the picture of an entry lies."""
    return files.shared.text(f"{files.folder(split)}/{entry.name('image_id')}.jpg")
