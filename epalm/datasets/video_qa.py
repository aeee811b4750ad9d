"""Questions about clips: MSRVTT-QA and MSVD-QA share their forms.

Official: a list of {"id", "video_id", "question", "answer"} (github.com/xudejing/video-question-answering). List: as
LXMERT keeps questions, with "video" for the clip: {"video", "sent", "label"}; {"question", "answer"} will do as well.
"""

from collections.abc import Callable, Iterator

from epalm.datasets.benchmark import Files, Form, Part
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.labelled import labelled_sample
from epalm.datasets.msrvtt_videos import listed_video
from epalm.samples import Modality, Sample, Task

SPLITS = ("train", "val", "test")
Locator = Callable[[Files], Callable[[Entry], str]]


def official_form(clips: Part, locator: Locator, *more: Part) -> Form:
    """The authors' own files; what `locator` gives says where the clip of an entry lies."""

    def read(files: Files) -> Iterator[tuple[Entry, Sample]]:
        locate = locator(files)
        for split, path in files.read("questions"):
            for entry in json_entries(path, ""):
                yield entry, _answered(entry, split, locate(entry), files)

    parts = tuple(Part(split, "questions", (f"{split}_qa.json",)) for split in SPLITS)
    return Form("official", "the authors' questions", (*parts, *more), (clips,), read)


def list_form(clips: Part, name: str) -> Form:
    """Lists as the paper's authors keep them: `name`_train.json, …"""

    def read(files: Files) -> Iterator[tuple[Entry, Sample]]:
        for split, path in files.read("questions with labels"):
            for entry in json_entries(path, ""):
                media = listed_video(files, entry)
                if "sent" in entry:
                    yield entry, labelled_sample(entry, split, Modality.VIDEO, media, files.shared)
                else:
                    yield entry, _answered(entry, split, media, files)

    parts = tuple(Part(split, "questions with labels", (f"{name}_{split}.json",)) for split in SPLITS)
    return Form("list", "lists of questions with labels", parts, (clips,), read)


def _answered(entry: Entry, split: str, media: str, files: Files) -> Sample:
    answer = entry.text("answer")
    return Sample(
        next((entry.name(key) for key in ("id", "question_id") if key in entry), f"{entry.file.stem}:{entry.number}"),
        Modality.VIDEO,
        files.shared.text(media),
        Task.QA,
        split,
        files.shared.text(entry.text("question")),
        files.shared.scores({answer: 1.0}),
        answer_type=entry.text_or_none("answer_type"),
    )
