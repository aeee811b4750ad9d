"""OK-VQA: the official questions and annotations, in VQA's form.

Of each answer, `answer` is taken, with which the official evaluation compares (okvqa.allenai.org). The question type is
the category of knowledge: "one" to "ten", which the annotations' "question_types" spell out, or "other".
"""

from epalm.datasets.benchmark import Benchmark, form
from epalm.datasets.benchmarks.coco_caption import coco_folders
from epalm.datasets.benchmarks.vqa_v2 import read_questions
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_SUBSETS = {"train": "train2014", "test": "val2014"}


@form(
    "official",
    "questions, and annotations with ten answers each",
    {
        "questions": {split: f"OpenEnded_mscoco_{name}_questions.json" for split, name in _SUBSETS.items()},
        "annotations": {split: f"mscoco_{name}_annotations.json" for split, name in _SUBSETS.items()},
    },
    coco_folders(_SUBSETS),
)
def _official(files: Files) -> None:
    read_questions(files, _SUBSETS)


BENCHMARK = Benchmark(
    "ok-vqa",
    "OK-VQA: image question answering that takes knowledge",
    "https://okvqa.allenai.org/download.html",
    Modality.IMAGE,
    Task.QA,
    "train, test (on COCO's val2014); there is no val",
    (_official,),
)
