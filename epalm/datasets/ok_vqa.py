"""OK-VQA: the official questions and annotations, in VQA's form.

Of each answer, `answer` is taken, with which the official evaluation compares (okvqa.allenai.org). The question type is
the category of knowledge: "one" to "ten", which the annotations' "question_types" spell out, or "other".
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.coco_images import coco_folder, file_name
from epalm.datasets.entries import Entry
from epalm.datasets.json_walk import walk_json
from epalm.datasets.vqa_files import read_questions
from epalm.samples import Modality, Sample, Task

_SUBSETS = {"train": "train2014", "test": "val2014"}


def _read(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, questions in files.read("questions"):
        folder, subset, annotations = files.folder(split), _SUBSETS[split], files.beside("annotations", split)

        def media(image: int, folder: str = folder, subset: str = subset) -> str:
            return f"{folder}/{file_name(subset, image)}"

        spelled = _categories(annotations) if annotations else {}
        for entry, sample in read_questions(questions, annotations, split, media, files.shared):
            kind = sample.question_type or ""
            yield entry, replace(sample, question_type=spelled.get(kind, kind) or None)


def _categories(annotations: Path) -> dict[str, str]:
    for section, _, value in walk_json(annotations):
        if section == "question_types" and isinstance(value, dict):
            return {key: name for key, name in value.items() if isinstance(name, str)}
    return {}


_FORM = Form(
    "official",
    "questions, and annotations with ten answers each",
    tuple(
        Part(split, what, (name.format(subset),))
        for split, subset in _SUBSETS.items()
        for what, name in (
            ("questions", "OpenEnded_mscoco_{}_questions.json"),
            ("annotations", "mscoco_{}_annotations.json"),
        )
    ),
    tuple(coco_folder(split, subset) for split, subset in _SUBSETS.items()),
    _read,
)
BENCHMARK = Benchmark(
    "ok-vqa",
    "OK-VQA: image question answering that takes knowledge",
    "https://okvqa.allenai.org/download.html",
    Modality.IMAGE,
    Task.QA,
    "train, test (on COCO's val2014); there is no val",
    (_FORM,),
)
