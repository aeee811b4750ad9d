"""A-OKVQA, answered directly: lists of {"split", "image_id", "question_id", "question", "direct_answers", …}.

Choices and rationales are not read. The official evaluation of direct answers leaves out questions that are marked
`difficult_direct_answer` (github.com/allenai/aokvqa): in val they have no answers here, and so are not scored.
"""

from epalm.datasets.benchmark import Benchmark, form
from epalm.datasets.benchmarks.coco_caption import coco_folders, coco_picture
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_SUBSETS = {"train": "train2017", "val": "val2017", "test": "test2017"}


@form(
    "official",
    "a list of questions of each split",
    {"questions": {split: [f"{folder}aokvqa_v1p0_{split}.json" for folder in ("", "aokvqa/")] for split in _SUBSETS}},
    coco_folders(_SUBSETS),
)
def _official(files: Files) -> None:
    for entry in files.json("questions", ""):
        raw: list[str] = []
        difficult = entry.split == "val" and entry.value.get("difficult_direct_answer") is True
        if entry.split != "test" and not difficult:
            raw = entry.texts("direct_answers")
            if not any(raw):
                raise entry.fault("'direct_answers' is empty")
        picture = coco_picture(files, _SUBSETS, entry)
        files.add_question(entry, entry.name("question_id"), picture, entry.text("question"), None, raw)


BENCHMARK = Benchmark(
    "a-okvqa",
    "A-OKVQA: image question answering that takes knowledge, answered directly",
    "https://github.com/allenai/aokvqa",
    Modality.IMAGE,
    Task.QA,
    "train, val, test (without answers)",
    (_official,),
)
