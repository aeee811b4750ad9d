"""MSRVTT's clips, which two benchmarks are about: how their files are called, and in which folders they lie."""

from epalm.datasets.benchmark import Files, Part
from epalm.datasets.entries import Entry

CLIPS = Part("", "videos", ("videos/all", "videos", "video", "all", "TrainValVideo", "TestVideo"))


def listed_video(files: Files, entry: Entry) -> str:
    """Where the clip lies that an entry of a list calls `video`: a file's path or name, with or without extension."""
    path = entry.path("video")
    return files.in_folders().place([stem_of(path)], f"{files.folder()}/{path}")


def stem_of(path: str) -> str:
    """The last part of a path without a media extension."""
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return stem if dot and extension.lower() in ("mp4", "avi", "mkv", "webm", "mov") else name
