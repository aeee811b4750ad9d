"""MSRVTT captions: the official videos and sentences, or lists of captions by clip.

Official: {"videos": [{"video_id", "split"}, …], "sentences": [{"video_id", "caption"}, …]}, in one file
(MSRVTT_data.json) or in two (train_val_videodatainfo.json and test_videodatainfo.json). List: {"video", "caption"},
where the caption is a text or a list of them.
"""

from collections.abc import Iterator

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.captions import Captions
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.msrvtt_videos import CLIPS, listed_video, stem_of
from epalm.samples import Modality, Sample, Task

_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}


def _read_official(files: Files) -> Iterator[tuple[Entry, Sample]]:
    whole = dict(files.read("videos and sentences"))
    parts = [whole[""]] if "" in whole else list(whole.values())
    for path in parts:
        captions = {split: Captions(split, Modality.VIDEO, files.shared) for split in _SPLITS.values()}
        split_of: dict[str, str] = {}
        waiting: list[Entry] = []  # sentences that come before the clips
        for entry in json_entries(path, "videos", "sentences"):
            if entry.section == "sentences":
                waiting.append(entry)
                continue
            name, split = entry.name("video_id"), entry.get("split")
            if split not in _SPLITS:
                raise entry.fault(f"'split' is {split!r}, not one of {', '.join(_SPLITS)}")
            if name in split_of:
                raise entry.fault(f"video_id {name!r} is used twice")
            split_of[name] = _SPLITS[split]
            captions[_SPLITS[split]].add(entry, name, _locate(files, name))
        for entry in waiting:
            name = entry.name("video_id")
            if name not in split_of:
                raise entry.fault(f"video_id {name!r} is not among the file's videos", hint="download the file again")
            captions[split_of[name]].add(entry, name, "", entry.text("caption"))
        for of_split in captions.values():
            yield from of_split.samples()


def _locate(files: Files, name: str) -> str:
    return files.in_folders().place([name], f"{files.folder()}/{name}.mp4")


def _read_list(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("captions"):
        captions = Captions(split, Modality.VIDEO, files.shared)
        for entry in json_entries(path, ""):
            several = isinstance(entry.get("caption"), list)
            texts = entry.texts("caption") if several else [entry.text("caption")]
            captions.add(entry, stem_of(entry.path("video")), listed_video(files, entry), *texts)
        yield from captions.samples()


_OFFICIAL = Form(
    "official",
    "videos and sentences in one file, or in one of train and val and one of test",
    (
        Part("", "videos and sentences", ("MSRVTT_data.json", "msrvtt_data/MSRVTT_data.json"), optional=True),
        Part("train", "videos and sentences", ("train_val_videodatainfo.json",), optional=True),
        Part("test", "videos and sentences", ("test_videodatainfo.json",), optional=True),
    ),
    (CLIPS,),
    _read_official,
)
_LIST = Form(
    "list",
    "lists of clips with captions",
    (
        Part("train", "captions", ("msrvtt_caption_train.json", "msrvtt_caption_train7k.json")),
        Part("val", "captions", ("msrvtt_caption_val.json",)),
        Part("test", "captions", ("msrvtt_caption_test.json",)),
    ),
    (CLIPS,),
    _read_list,
)
BENCHMARK = Benchmark(
    "msrvtt-caption",
    "MSRVTT captions: video captions",
    "https://www.microsoft.com/en-us/research/publication/"
    "msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    Modality.VIDEO,
    Task.CAPTION,
    "train, val (validate in the files), test",
    (_OFFICIAL, _LIST),
)
