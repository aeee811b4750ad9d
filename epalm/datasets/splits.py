"""The split that a folder's name stands for."""

import re

SPLITS = ("train", "val", "test")
_FOLDER = re.compile(r"(train|val|test)(ing|id|idation)?")


def split_of_folder(name: str) -> str | None:
    """Of "train", "val" and "test" the one that a folder is called, longer spellings included, or None."""
    match = _FOLDER.fullmatch(name.lower())
    return match[1] if match else None
