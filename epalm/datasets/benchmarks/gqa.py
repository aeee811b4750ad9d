"""GQA: the official balanced questions, or the list form of LXMERT and VL-Adapter.

Official: an object with a member for each question, {"imageId", "question", "answer", "types": {"structural"}}
(cs.stanford.edu/people/dorarad/gqa/download.html). List: {"img_id", "sent", "label", "question_id"}.
"""

from epalm.datasets.benchmark import Benchmark, Files
from epalm.samples import Modality, Task

GQA = Benchmark(
    "gqa",
    "GQA",
    "https://cs.stanford.edu/people/dorarad/gqa/download.html",
    Modality.IMAGE,
    Task.QA,
    ("questionId", "prediction", str),  # cs.stanford.edu/people/dorarad/gqa/evaluate.html
)
_IMAGES = {"images": ("images", "GQA/images", "gqa/images", "allImages/images")}


@GQA.form(
    "official: the balanced questions; results are reported on testdev",
    {"questions": ("{}_balanced_questions.json", "questions1.2/{}_balanced_questions.json")},
    _IMAGES,
    {"train": "train", "val": "val", "test": "testdev", "submission": "test"},
)
def _official(files: Files) -> None:
    for entry in files.json("questions"):
        answer = entry.text_or_none("answer") if entry.split == "submission" else entry.text("answer")
        types = entry.values.get("types")
        kind = types.get("structural") if isinstance(types, dict) else None  # verify, query, choose, logical, compare
        files.add_question(
            entry,
            str(entry.section),
            f"{files.folder()}/{entry.name('imageId')}.jpg",
            entry.text("question"),
            {answer: 1.0} if answer else None,
            types=(kind if isinstance(kind, str) and kind else None, None),
        )


@GQA.form(
    "list: lists of questions with labels, as LXMERT and VL-Adapter keep them",
    {"questions with labels": ("{}.json", "GQA/{}.json")},
    _IMAGES,
    {"train": "train", "val": "valid", "test": "testdev"},
)
def _list(files: Files) -> None:
    for entry in files.json("questions with labels", ""):
        files.add_labelled(entry, f"{files.folder()}/{entry.name('img_id')}.jpg")
