"""MSRVTT-QA and MSRVTT captions, about the same clips, whose `video_id` 7010 is the file video7010.mp4.

Questions, in forms that MSVD-QA shares. Official: a list of {"id", "video_id", "question", "answer"}
(github.com/xudejing/video-question-answering). List: as LXMERT keeps questions, with "video" for the clip: {"video",
"sent", "label"}; {"question", "answer"} will do as well.

Captions. Official: {"videos": [{"video_id", "split"}, …], "sentences": [{"video_id", "caption"}, …]}, in one file
(MSRVTT_data.json) or in two (train_val_videodatainfo.json and test_videodatainfo.json). List: {"video", "caption"},
where the caption is a text or a list of them.
"""

from collections.abc import Callable

from epalm.datasets.benchmark import Benchmark, Form, form
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {"train": "train", "validate": "val", "val": "val", "test": "test"}
_CLIPS = ("videos/all", "videos", "video", "all", "TrainValVideo", "TestVideo")
_EXTENSIONS = ("mp4", "avi", "mkv", "webm", "mov")
Locate = Callable[[Entry], str]


def qa_forms(
    clips: tuple[str, ...], list_name: str, locator: Callable[[Files], Locate], mapping: str | None = None
) -> tuple[Form, Form]:
    """The authors' own files, whose clips `locator` finds, and lists named `list_name`_train.json, …"""
    media = {"videos": {"": clips}}
    questions: dict[str, dict[str, str]] = {"questions": {split: f"{split}_qa.json" for split in _SPLITS}}
    questions |= {"names of clips": {"": mapping}} if mapping else {}

    @form("official", "the authors' questions", questions, media, optional=("names of clips",))
    def official(files: Files) -> None:
        locate = locator(files)
        for entry in files.json("questions", ""):
            _add_answered(files, entry, locate(entry))

    lists = {"questions with labels": {split: f"{list_name}_{split}.json" for split in _SPLITS}}

    @form("list", "lists of questions with labels", lists, media)
    def listed(files: Files) -> None:
        for entry in files.json("questions with labels", ""):
            if "sent" in entry:
                files.add_labelled(entry, _listed_clip(files, entry))
            else:
                _add_answered(files, entry, _listed_clip(files, entry))

    return official, listed


def _add_answered(files: Files, entry: Entry, clip: str) -> None:
    key = next((key for key in ("id", "question_id") if key in entry), None)
    name = entry.name(key) if key else f"{entry.file.stem}:{entry.number}"
    types = (None, entry.text_or_none("answer_type"))
    files.add_question(entry, name, clip, entry.text("question"), {entry.text("answer"): 1.0}, types=types)


def _listed_clip(files: Files, entry: Entry) -> str:
    """Where the clip lies that an entry of a list calls `video`: a file's path or name, with or without extension."""
    return files.locate([_stem(entry)], f"{files.folder()}/{entry.path('video')}")


def _stem(entry: Entry) -> str:
    name = entry.path("video").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return stem if dot and extension.lower() in _EXTENSIONS else name


def _locator(files: Files) -> Locate:
    def locate(entry: Entry) -> str:
        name = entry.name("video_id")
        stem = f"video{name}" if name.isdigit() else name
        return files.locate([stem], f"{files.folder()}/{stem}.mp4")

    return locate


@form(
    "official",
    "videos and sentences in one file, or in one of train and val and one of test",
    {
        "videos and sentences": {
            "": ("MSRVTT_data.json", "msrvtt_data/MSRVTT_data.json"),
            "train": "train_val_videodatainfo.json",
            "test": "test_videodatainfo.json",
        }
    },
    {"videos": {"": _CLIPS}},
    optional=("videos and sentences",),
)
def _official(files: Files) -> None:
    paths = dict(files.paths("videos and sentences"))
    for path in [paths[""]] if "" in paths else paths.values():
        split_of: dict[str, str] = {}
        for entry in json_entries(path, "", "videos"):
            name = entry.name("video_id")
            if name in split_of:
                raise entry.fault(f"video_id {name!r} is used twice")
            split = split_of[name] = entry.choice("split", _SPLIT_NAMES)
            files.add_captions(entry, name, files.locate([name], f"{files.folder()}/{name}.mp4"), split=split)
        for entry in json_entries(path, "", "sentences"):
            name = entry.name("video_id")
            if name not in split_of:
                raise entry.fault(f"video_id {name!r} is not among the file's videos", hint="download the file again")
            files.add_captions(entry, name, "", [entry.text("caption")], split=split_of[name])


@form(
    "list",
    "lists of clips with captions",
    {
        "captions": {
            "train": ("msrvtt_caption_train.json", "msrvtt_caption_train7k.json"),
            "val": "msrvtt_caption_val.json",
            "test": "msrvtt_caption_test.json",
        }
    },
    {"videos": {"": _CLIPS}},
)
def _list(files: Files) -> None:
    for entry in files.json("captions", ""):
        several = isinstance(entry.get("caption"), list)
        captions = entry.texts("caption") if several else [entry.text("caption")]
        files.add_captions(entry, _stem(entry), _listed_clip(files, entry), captions)


QUESTIONS = Benchmark(
    "msrvtt-qa",
    "MSRVTT-QA: video question answering",
    "https://github.com/xudejing/video-question-answering",
    Modality.VIDEO,
    Task.QA,
    "train, val, test",
    qa_forms(_CLIPS, "msrvtt_vqa", _locator),
)
CAPTIONS = Benchmark(
    "msrvtt-caption",
    "MSRVTT captions: video captions",
    "https://www.microsoft.com/en-us/research/publication/"
    "msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    Modality.VIDEO,
    Task.CAPTION,
    "train, val (validate in the files), test",
    (_official, _list),
)
