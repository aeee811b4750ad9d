"""VQA v2: the official questions and annotations, or the Karpathy split with soft labels.

Questions: {"questions": [{"image_id", "question", "question_id"}, …]}. Annotations: {"annotations": [{"question_id",
"question_type", "answer_type", "answers": [{"answer"}, …]}, …]} (visualqa.org/vqa_v1_download.html).

The Karpathy split is what the paper's authors use, in the form of VL-Adapter: a list of {"question_id", "img_id",
"sent", "label", "question_type", "answer_type"}, where the label maps answers to their soft scores. Beside the official
annotations, its questions have their ten answers as well, for the official accuracy.
"""

from pathlib import Path

from epalm.datasets.benchmark import Benchmark, form
from epalm.datasets.benchmarks.coco_caption import coco_folders, coco_picture, subset_of
from epalm.datasets.entries import json_entries
from epalm.datasets.generic import share
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_SUBSETS = {"train": "train2014", "val": "val2014", "test-dev": "test2015", "test": "test2015"}
_QUESTIONS = _SUBSETS | {"test-dev": "test-dev2015"}
_KARPATHY_SUBSETS = {"train2014": "train2014", "val2014": "val2014"}
_Annotation = tuple[tuple[str, ...], tuple[str | None, str | None]]  # raw answers, question and answer type
_UNANSWERED: _Annotation = ((), (None, None))


def read_questions(files: Files, subsets: dict[str, str]) -> None:
    """Add each question about a picture of COCO with its answers; without annotations, none has any."""
    for split, path in files.paths("questions"):
        annotations = files.beside("annotations", split)
        known = _annotations(annotations) if annotations else {}
        for entry in json_entries(path, split, "questions"):
            name = entry.name("question_id")
            if annotations and name not in known:
                raise entry.fault(f"question_id {name} has no annotation in {annotations}", "take both of one version")
            raw, types = known.pop(name, _UNANSWERED)
            files.add_question(
                entry, name, coco_picture(files, subsets, entry), entry.text("question"), None, raw, types
            )
        if known:
            raise entry.fault(
                f"the questions end there, and {annotations} has {len(known):,} more: question_id {next(iter(known))}",
                hint="the questions may be cut off, or of another version: download both again",
            )


def _annotations(path: Path) -> dict[str, _Annotation]:
    """What people answered, by question id. Where the file has names of its question types, these are taken."""
    known: dict[str, _Annotation] = {}
    names: dict[str, str] = {}
    for entry in json_entries(path, "", "annotations", "question_types"):
        if entry.section == "question_types":
            names = {key: name for key, name in entry.value.items() if isinstance(name, str)}
            continue
        name = entry.name("question_id")
        if name in known:
            raise entry.fault(f"question_id {name} is used twice")
        types = (entry.text_or_none("question_type"), entry.text_or_none("answer_type"))
        known[name] = (tuple(map(share, entry.texts("answers", "answer"))), types)
    if not names:
        return known
    return {name: (raw, (names.get(kind or "", kind), other)) for name, (raw, (kind, other)) in known.items()}


@form(
    "official",
    "questions, and annotations with ten answers each",
    {
        "questions": {split: f"v2_OpenEnded_mscoco_{name}_questions.json" for split, name in _QUESTIONS.items()},
        "annotations": {split: f"v2_mscoco_{split}2014_annotations.json" for split in ("train", "val")},
    },
    coco_folders(_SUBSETS),
)
def _official(files: Files) -> None:
    read_questions(files, _SUBSETS)


@form(
    "karpathy",
    "the Karpathy split with soft labels, as VL-Adapter and the paper's authors use it",
    {
        "questions with labels": {
            split: (f"karpathy_{split}.json", f"vqa/karpathy_{split}.json") for split in ("train", "val", "test")
        },
        "annotations": {subset: f"v2_mscoco_{subset}_annotations.json" for subset in _KARPATHY_SUBSETS},
    },
    coco_folders(_KARPATHY_SUBSETS),
    optional=("annotations",),
)
def _karpathy(files: Files) -> None:
    known: dict[str, _Annotation] = {}
    official = [path for _, path in files.paths("annotations")]
    if len(official) == 1:
        files.notes.append(f"{official[0].name} alone does not have the ten answers of all questions, and is not read")
    else:
        known = {name: answers for path in official for name, answers in _annotations(path).items()}
    for entry in files.json("questions with labels", ""):
        name = entry.name("question_id") if known else ""
        if known and name not in known:
            raise entry.fault(f"question_id {name} has no official annotation", "take them away, or get both")
        picture = f"{files.folder(subset_of(entry, 'img_id'))}/{entry.name('img_id')}.jpg"
        files.add_labelled(entry, picture, known.get(name, _UNANSWERED)[0])


BENCHMARK = Benchmark(
    "vqa-v2",
    "VQA v2: image question answering",
    "https://visualqa.org/download.html",
    Modality.IMAGE,
    Task.QA,
    "official: train, val, test-dev and test, the last two without answers; karpathy: train, val, test with labels",
    (_official, _karpathy),
)
