"""GQA: the official balanced questions, or the list form of LXMERT and VL-Adapter.

Official: an object with a member for each question, {"imageId", "question", "answer", "types": {"structural"}}
(cs.stanford.edu/people/dorarad/gqa/download.html). List: {"img_id", "sent", "label", "question_id"}.
"""

from collections.abc import Iterator

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.labelled import read_labelled
from epalm.samples import Modality, Sample, Task


def _read_official(files: Files) -> Iterator[tuple[Entry, Sample]]:
    folder, shared = files.folder(), files.shared
    for split, path in files.read("questions"):
        for entry in json_entries(path):
            answer = entry.text_or_none("answer")
            if answer is None and split != "submission":
                raise entry.fault("missing key 'answer'")
            yield (
                entry,
                Sample(
                    str(entry.section),
                    Modality.IMAGE,
                    shared.text(f"{folder}/{entry.name('imageId')}.jpg"),
                    Task.QA,
                    split,
                    shared.text(entry.text("question")),
                    shared.scores({answer: 1.0} if answer else {}),
                    question_type=_structural(entry),
                ),
            )


def _structural(entry: Entry) -> str | None:
    """What a question asks to be done: verify, query, choose, logical or compare."""
    types = entry.value.get("types")
    kind = types.get("structural") if isinstance(types, dict) else None
    return kind if isinstance(kind, str) and kind else None


def _read_list(files: Files) -> Iterator[tuple[Entry, Sample]]:
    folder = files.folder()
    for split, path in files.read("questions with labels"):
        yield from read_labelled(
            path, split, Modality.IMAGE, lambda entry: f"{folder}/{entry.name('img_id')}.jpg", files.shared
        )


_IMAGES = Part("", "images", ("images", "GQA/images", "gqa/images", "allImages/images"))
_FOLDERS = ("", "questions1.2/")


def _names(*names: str) -> tuple[str, ...]:
    return tuple(folder + name for name in names for folder in _FOLDERS)


_OFFICIAL = Form(
    "official",
    "the balanced questions",
    (
        Part("train", "questions", _names("train_balanced_questions.json")),
        Part("val", "questions", _names("val_balanced_questions.json")),
        Part("test", "questions", _names("testdev_balanced_questions.json")),
        Part("submission", "questions", _names("test_balanced_questions.json")),
    ),
    (_IMAGES,),
    _read_official,
)
_LIST = Form(
    "list",
    "lists of questions with labels, as LXMERT and VL-Adapter keep them",
    (
        Part("train", "questions with labels", ("train.json", "GQA/train.json")),
        Part("val", "questions with labels", ("valid.json", "GQA/valid.json")),
        Part("test", "questions with labels", ("testdev.json", "GQA/testdev.json")),
    ),
    (_IMAGES,),
    _read_list,
)
BENCHMARK = Benchmark(
    "gqa",
    "GQA: image question answering",
    "https://cs.stanford.edu/people/dorarad/gqa/download.html",
    Modality.IMAGE,
    Task.QA,
    "train, val; testdev, which results are told on, is test; the official test, without answers, is submission",
    (_OFFICIAL, _LIST),
)
