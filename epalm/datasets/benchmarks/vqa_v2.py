"""VQA v2: the official questions and annotations, or the Karpathy split with soft labels.

Questions: {"questions": [{"image_id", "question", "question_id"}, …]}. Annotations: {"annotations": [{"question_id",
"question_type", "answer_type", "answers": [{"answer"}, …]}, …]} (visualqa.org/vqa_v1_download.html).

The Karpathy split is what the paper's authors use, in the form of VL-Adapter: a list of {"question_id", "img_id",
"sent", "label", "question_type", "answer_type"}, where the label maps answers to their soft scores. Beside the official
annotations, its questions have their ten answers as well, for the official accuracy.
"""

import re
from pathlib import Path
from sys import intern

from epalm.console import warn
from epalm.datasets.benchmark import Benchmark, Files
from epalm.datasets.benchmarks.coco_caption import COCO_FOLDERS, coco_picture
from epalm.datasets.entries import json_entries
from epalm.samples import Modality, Task

RESULTS = ("question_id", "answer", int)  # visualqa.org/evaluation
VQA_V2 = Benchmark("vqa-v2", "VQA v2", "https://visualqa.org/download.html", Modality.IMAGE, Task.QA, RESULTS)
_SUBSETS = {"train": "train2014", "val": "val2014", "test-dev": "test-dev2015", "test": "test2015"}
_IMAGE_ID = re.compile(r"COCO_(train2014|val2014)_\d{12}")
_Annotation = tuple[tuple[str, ...], tuple[str | None, str | None]]  # raw answers, question and answer type


@VQA_V2.form(
    "official: questions, and annotations with ten answers each",
    {
        "questions": {split: f"v2_OpenEnded_mscoco_{name}_questions.json" for split, name in _SUBSETS.items()},
        "annotations": {split: f"v2_mscoco_{split}2014_annotations.json" for split in ("train", "val")},
    },
    {"images": COCO_FOLDERS},
    _SUBSETS | {"test-dev": "test2015"},
)
def read_questions(files: Files) -> None:
    """Add each question about a picture of COCO with its answers; without annotations, none has any."""
    annotations = dict(files.paths("annotations"))
    for split, path in files.paths("questions"):
        known = _annotations(annotations[split]) if split in annotations else None
        for entry in json_entries(path, split, "questions"):
            name, picture = entry.name("question_id"), coco_picture(files, entry)
            if known is not None and name not in known:
                hint = "take both of one version"
                raise entry.fault(f"question_id {name} has no annotation in {annotations[split]}", hint)
            raw, types = known.pop(name) if known else ((), (None, None))
            files.add_question(entry, name, picture, entry.text("question"), None, raw, types)
        if known:
            raise entry.fault(
                f"the questions end there, and {annotations[split]} has {len(known):,} more: question_id {min(known)}",
                hint="the questions may be cut off, or of another version: download both again",
            )


def _annotations(path: Path) -> dict[str, _Annotation]:
    """What people answered, by question id. Where the file has names of its question types, these are taken."""
    known: dict[str, _Annotation] = {}
    names: dict[str, str] = {}
    for entry in json_entries(path, "", "annotations", "question_types"):
        if entry.section == "question_types":
            names = {key: entry.text(key) for key in entry.values}
            continue
        name = entry.name("question_id")
        if name in known:
            raise entry.fault(f"question_id {name} is used twice")
        types = (entry.text_or_none("question_type"), entry.text_or_none("answer_type"))
        known[name] = (tuple(map(intern, entry.texts("answers", "answer"))), types)
    if not names:
        return known
    return {name: (raw, (names.get(kind or "", kind), other)) for name, (raw, (kind, other)) in known.items()}


@VQA_V2.form(
    "karpathy: the Karpathy split with soft labels, as VL-Adapter and the paper's authors use it",
    {
        "questions with labels": {
            split: (f"karpathy_{split}.json", f"vqa/karpathy_{split}.json") for split in ("train", "val", "test")
        },
        "annotations": "v2_mscoco_{}_annotations.json",
    },
    {"images": COCO_FOLDERS},
    ("train2014", "val2014"),
    optional=("annotations",),
)
def _karpathy(files: Files) -> None:
    known: dict[str, _Annotation] = {}
    official = [path for _, path in files.paths("annotations")]
    if len(official) == 1:
        warn(f"{official[0].name} alone does not have the ten answers of all questions, and is not read")
    else:
        known = {name: answers for path in official for name, answers in _annotations(path).items()}
    for entry in files.json("questions with labels", ""):
        name, image = entry.name("question_id") if known else "", entry.name("img_id")
        if known and name not in known:
            raise entry.fault(f"question_id {name} has no official annotation", "take them away, or get both")
        match = _IMAGE_ID.fullmatch(image)
        if match is None:
            raise entry.fault(f"'img_id' is {image!r}, which is no image id such as COCO_val2014_000000262148")
        files.add_labelled(entry, f"{files.folder(match[1])}/{image}.jpg", known[name][0] if known else ())
