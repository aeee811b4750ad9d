"""MSRVTT-QA and MSRVTT captions, about the same clips, whose `video_id` 7010 is the file video7010.mp4.

Questions, in forms that MSVD-QA shares. Official: a list of {"id", "video_id", "question", "answer"}
(github.com/xudejing/video-question-answering). List: as LXMERT keeps questions, with "video" for the clip: {"video",
"sent", "label"}; {"question", "answer"} will do as well.

Captions. Official: {"videos": [{"video_id", "split"}, …], "sentences": [{"video_id", "caption"}, …]}, in one file
(MSRVTT_data.json) or in two (train_val_videodatainfo.json and test_videodatainfo.json). List: {"video", "caption"},
where the caption is a text or a list of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from epalm.datasets.benchmark import Benchmark, Files
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.listing import modality_of
from epalm.samples import Modality, Task

MSRVTT_QA = Benchmark(
    "msrvtt-qa", "MSRVTT-QA", "https://github.com/xudejing/video-question-answering", Modality.VIDEO, Task.QA
)
MSRVTT_CAPTION = Benchmark(
    "msrvtt-caption",
    "MSRVTT captions",
    "https://www.microsoft.com/en-us/research/publication/"
    "msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    Modality.VIDEO,
    Task.CAPTION,
)
_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}
_CLIPS = {"videos": ("videos/all", "videos", "video", "all", "TrainValVideo", "TestVideo")}


def add_question(files: Files, entry: Entry, clip: str) -> None:
    """Add an entry of a list of questions: as LXMERT keeps them, or as the authors do."""
    if "sent" in entry:
        files.add_labelled(entry, clip)
        return
    key = "id" if "id" in entry else "question_id"
    name = entry.name(key) if key in entry else f"{entry.file.stem}:{entry.number}"
    types = (None, entry.text_or_none("answer_type"))
    files.add_question(entry, name, clip, entry.text("question"), {entry.text("answer"): 1.0}, types=types)


def add_list_form(benchmark: Benchmark, name: str, clips: Mapping[str, Sequence[str]]) -> None:
    """The form of lists called `name`_train.json, …"""

    @benchmark.form("list: lists of questions with labels", {"questions with labels": f"{name}_{{}}.json"}, clips)
    def _list(files: Files) -> None:
        for entry in files.json("questions with labels", ""):
            add_question(files, entry, _listed_clip(files, entry)[1])


def _listed_clip(files: Files, entry: Entry) -> tuple[str, str]:
    """Name and place of the clip that an entry calls `video`: a file's path or name, with or without extension."""
    path = PurePosixPath(entry.text("video"))
    stem = path.stem if modality_of(path) is Modality.VIDEO else path.name
    return stem, files.locate([stem], f"{files.folder()}/{path.name}")


@MSRVTT_QA.form("official: the authors' questions", {"questions": "{}_qa.json"}, _CLIPS)
def _questions(files: Files) -> None:
    for entry in files.json("questions", ""):
        clip = f"video{entry.name('video_id').removeprefix('video')}"
        add_question(files, entry, files.locate([clip], f"{files.folder()}/{clip}.mp4"))


add_list_form(MSRVTT_QA, "msrvtt_vqa", _CLIPS)


@MSRVTT_CAPTION.form(
    "official: videos and sentences in one file, or in one of train and val and one of test",
    {
        "videos and sentences": {
            "": ("MSRVTT_data.json", "msrvtt_data/MSRVTT_data.json"),
            "train": "train_val_videodatainfo.json",
            "test": "test_videodatainfo.json",
        }
    },
    _CLIPS,
    optional=("videos and sentences",),
)
def _captions(files: Files) -> None:
    paths = dict(files.paths("videos and sentences"))
    for path in [paths[""]] if "" in paths else paths.values():
        splits: dict[str, str] = {}
        for entry in json_entries(path, "", "videos"):
            name = entry.name("video_id")
            if name in splits:
                raise entry.fault(f"video_id {name!r} is used twice")
            splits[name] = entry.choice("split", _SPLITS)
            files.add_captions(entry, name, files.locate([name], f"{files.folder()}/{name}.mp4"), (), splits[name])
        for entry in json_entries(path, "", "sentences"):
            name = entry.name("video_id")
            if name not in splits:
                raise entry.fault(f"video_id {name!r} is not among the file's videos", hint="download the file again")
            files.add_captions(entry, name, "", [entry.text("caption")], splits[name])


@MSRVTT_CAPTION.form(
    "list: lists of clips with captions",
    {"captions": ("msrvtt_caption_{}.json", "msrvtt_caption_{}7k.json")},
    _CLIPS,
)
def _listed_captions(files: Files) -> None:
    for entry in files.json("captions", ""):
        several = isinstance(entry.get("caption"), list)
        captions = entry.texts("caption") if several else [entry.text("caption")]
        files.add_captions(entry, *_listed_clip(files, entry), captions)
