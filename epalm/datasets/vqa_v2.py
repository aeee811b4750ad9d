"""VQA v2: the official questions and annotations, or the Karpathy split with soft labels.

The Karpathy split is what the paper's authors use, in the form of VL-Adapter: a list of {"question_id", "img_id",
"sent", "label", "question_type", "answer_type"}, where the label maps answers to their soft scores. Beside the official
annotations, its questions have their ten answers as well, for the official accuracy.
"""

from collections.abc import Iterator
from dataclasses import replace

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.coco_images import coco_folder, file_name, subset_of
from epalm.datasets.entries import Entry
from epalm.datasets.labelled import read_labelled
from epalm.datasets.vqa_files import Annotation, read_annotations, read_questions
from epalm.samples import Modality, Sample, Task

_KARPATHY_SUBSETS = ("train2014", "val2014")
_SUBSETS = {"train": "train2014", "val": "val2014", "test-dev": "test2015", "test": "test2015"}


def _read_official(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, questions in files.read("questions"):
        folder, subset = files.folder(split), _SUBSETS[split]
        yield from read_questions(
            questions,
            files.beside("annotations", split),
            split,
            lambda image, folder=folder, subset=subset: f"{folder}/{file_name(subset, image)}",  # type: ignore[misc]
            files.shared,
        )


def _read_karpathy(files: Files) -> Iterator[tuple[Entry, Sample]]:
    folders = {subset: files.folder(subset) for subset in _KARPATHY_SUBSETS}

    def media(entry: Entry) -> str:
        return f"{folders[subset_of(entry, 'img_id')]}/{entry.name('img_id')}.jpg"

    known = _annotations(files)
    for split, path in files.read("questions with labels"):
        for entry, sample in read_labelled(path, split, Modality.IMAGE, media, files.shared):
            if known and sample.id not in known:
                raise entry.fault(f"question_id {sample.id} has no official annotation", "take them away, or get both")
            yield entry, replace(sample, raw_answers=known[sample.id][0]) if known else sample


def _annotations(files: Files) -> dict[str, Annotation]:
    """What people answered to any question, where both files that tell it are there."""
    paths = [path for _, path in files.read("annotations")]
    if len(paths) == 1:
        files.notes.append(f"{paths[0].name} alone does not have the ten answers of all questions, and is not read")
        return {}
    return {name: said for path in paths for name, said in read_annotations(path, files.shared).items()}


_OFFICIAL = Form(
    "official",
    "questions, and annotations with ten answers each",
    (
        Part("train", "questions", ("v2_OpenEnded_mscoco_train2014_questions.json",)),
        Part("train", "annotations", ("v2_mscoco_train2014_annotations.json",)),
        Part("val", "questions", ("v2_OpenEnded_mscoco_val2014_questions.json",)),
        Part("val", "annotations", ("v2_mscoco_val2014_annotations.json",)),
        Part("test-dev", "questions", ("v2_OpenEnded_mscoco_test-dev2015_questions.json",)),
        Part("test", "questions", ("v2_OpenEnded_mscoco_test2015_questions.json",)),
    ),
    tuple(coco_folder(split, subset) for split, subset in _SUBSETS.items()),
    _read_official,
)
_KARPATHY = Form(
    "karpathy",
    "the Karpathy split with soft labels, as VL-Adapter and the paper's authors use it",
    (
        *(
            Part(split, "questions with labels", (f"karpathy_{split}.json", f"vqa/karpathy_{split}.json"))
            for split in ("train", "val", "test")
        ),
        *(
            Part("", "annotations", (f"v2_mscoco_{name}_annotations.json",), optional=True)
            for name in _KARPATHY_SUBSETS
        ),
    ),
    tuple(coco_folder(subset, subset) for subset in _KARPATHY_SUBSETS),
    _read_karpathy,
)
BENCHMARK = Benchmark(
    "vqa-v2",
    "VQA v2: image question answering",
    "https://visualqa.org/download.html",
    Modality.IMAGE,
    Task.QA,
    "official: train, val, test-dev and test, the last two without answers; karpathy: train, val, test with labels",
    (_OFFICIAL, _KARPATHY),
)
