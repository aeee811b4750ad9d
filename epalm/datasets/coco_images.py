"""COCO's pictures, which many benchmarks ask about: how their files are called, and in which folders they lie."""

import re

from epalm.datasets.benchmark import Part
from epalm.datasets.entries import Entry

_IMAGE_ID = re.compile(r"COCO_(train2014|val2014)_\d{12}")
_ABOVE = ("", "images/", "coco/", "coco/images/", "COCO/", "COCO/images/")


def coco_folder(split: str, name: str) -> Part:
    """The folder of a split's pictures; `name` is COCO's own, such as train2014."""
    return Part(split, "images", tuple(above + name for above in _ABOVE))


def file_name(subset: str, image: int) -> str:
    """A picture's file in one of COCO's subsets: COCO_train2014_000000000009.jpg; from 2017 on without the prefix."""
    prefix = "" if subset.endswith("2017") else f"COCO_{subset}_"
    return f"{prefix}{image:012}.jpg"


def subset_of(entry: Entry, key: str) -> str:
    """The subset that an image id such as COCO_val2014_000000262148 names."""
    name = entry.name(key)
    match = _IMAGE_ID.fullmatch(name)
    if match is None:
        raise entry.fault(f"{key!r} is {name!r}, which is no image id such as COCO_val2014_000000262148")
    return match[1]
