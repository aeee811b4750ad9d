"""GQA: the official balanced questions, or the list form of LXMERT and VL-Adapter.

Official: an object with a member for each question, {"imageId", "question", "answer", "types": {"structural"}}
(cs.stanford.edu/people/dorarad/gqa/download.html). List: {"img_id", "sent", "label", "question_id"}.
"""

from epalm.datasets.benchmark import Benchmark, form
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_FILES = {"train": "train", "val": "val", "test": "testdev", "submission": "test"}
_LISTS = {"train": "train", "val": "valid", "test": "testdev"}


_IMAGES = {"images": {"": ("images", "GQA/images", "gqa/images", "allImages/images")}}
_FOLDERS = ("", "questions1.2/")


@form(
    "official",
    "the balanced questions",
    {
        "questions": {
            split: [f"{folder}{name}_balanced_questions.json" for folder in _FOLDERS] for split, name in _FILES.items()
        }
    },
    _IMAGES,
)
def _official(files: Files) -> None:
    for entry in files.json("questions"):
        answer = entry.text_or_none("answer") if entry.split == "submission" else entry.text("answer")
        types = entry.value.get("types")
        kind = types.get("structural") if isinstance(types, dict) else None  # verify, query, choose, logical, compare
        files.add_question(
            entry,
            str(entry.section),
            f"{files.folder()}/{entry.name('imageId')}.jpg",
            entry.text("question"),
            {answer: 1.0} if answer else None,
            types=(kind if isinstance(kind, str) and kind else None, None),
        )


@form(
    "list",
    "lists of questions with labels, as LXMERT and VL-Adapter keep them",
    {"questions with labels": {split: (f"{name}.json", f"GQA/{name}.json") for split, name in _LISTS.items()}},
    _IMAGES,
)
def _list(files: Files) -> None:
    for entry in files.json("questions with labels", ""):
        files.add_labelled(entry, f"{files.folder()}/{entry.name('img_id')}.jpg")


BENCHMARK = Benchmark(
    "gqa",
    "GQA: image question answering",
    "https://cs.stanford.edu/people/dorarad/gqa/download.html",
    Modality.IMAGE,
    Task.QA,
    "train, val; testdev, on which results are reported, is test; the official test, without answers, is submission",
    (_official, _list),
)
