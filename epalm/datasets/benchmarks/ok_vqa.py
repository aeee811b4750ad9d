"""OK-VQA and A-OKVQA: questions about COCO's pictures that take knowledge of the world.

OK-VQA: the official questions and annotations, in VQA's form. Of each answer, `answer` is taken, with which the
official evaluation compares (okvqa.allenai.org). The question type is the category of knowledge: "one" to "ten", which
the annotations' "question_types" spell out, or "other".

A-OKVQA, answered directly: lists of {"split", "image_id", "question_id", "question", "direct_answers", …}. Choices and
rationales are not read. The official evaluation of direct answers leaves out questions that are marked
`difficult_direct_answer` (github.com/allenai/aokvqa): in val they have no answers here, and so are not scored.
"""

from epalm.datasets.benchmark import Benchmark, Files
from epalm.datasets.benchmarks.coco_caption import COCO_FOLDERS, coco_picture
from epalm.datasets.benchmarks.vqa_v2 import RESULTS, read_questions
from epalm.samples import Modality, Task

OK_VQA = Benchmark("ok-vqa", "OK-VQA", "https://okvqa.allenai.org/download.html", Modality.IMAGE, Task.QA, RESULTS)
A_OKVQA = Benchmark("a-okvqa", "A-OKVQA", "https://github.com/allenai/aokvqa", Modality.IMAGE, Task.QA)


OK_VQA.form(
    "official: questions, and annotations with ten answers each",
    {"questions": "OpenEnded_mscoco_{}_questions.json", "annotations": "mscoco_{}_annotations.json"},
    {"images": COCO_FOLDERS},
    {"train": "train2014", "test": "val2014"},
)(read_questions)


@A_OKVQA.form(
    "official: a list of questions of each split",
    {"questions": ("aokvqa_v1p0_{}.json", "aokvqa/aokvqa_v1p0_{}.json")},
    {"images": [folder + "2017" for folder in COCO_FOLDERS]},
)
def _a_okvqa(files: Files) -> None:
    for entry in files.json("questions", ""):
        difficult = entry.split == "val" and entry.values.get("difficult_direct_answer") is True
        raw = [] if entry.split == "test" or difficult else entry.texts("direct_answers")
        picture = coco_picture(files, entry)
        files.add_question(entry, entry.name("question_id"), picture, entry.text("question"), None, raw)
