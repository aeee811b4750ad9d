"""A-OKVQA, answered directly: lists of {"split", "image_id", "question_id", "question", "direct_answers", …}.

Choices and rationales are not read. The official evaluation of direct answers leaves out questions that are marked
`difficult_direct_answer` (github.com/allenai/aokvqa): in val they have no answers here, and so are not scored.
"""

from collections.abc import Iterator

from epalm.datasets.answers import agreed_scores
from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.coco_images import coco_folder, file_name
from epalm.datasets.entries import Entry, json_entries
from epalm.samples import Modality, Sample, Task

_SPLITS = ("train", "val", "test")


def _read(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("questions"):
        folder = files.folder(split)
        for entry in json_entries(path, ""):
            raw = files.shared.texts(_answers(entry, split))
            yield (
                entry,
                Sample(
                    entry.name("question_id"),
                    Modality.IMAGE,
                    files.shared.text(f"{folder}/{file_name(f'{split}2017', entry.number_in('image_id', 10**12))}"),
                    Task.QA,
                    split,
                    files.shared.text(entry.text("question")),
                    files.shared.scores(agreed_scores(raw)),
                    raw,
                ),
            )


def _answers(entry: Entry, split: str) -> list[str]:
    if split == "test" or (split == "val" and entry.value.get("difficult_direct_answer") is True):
        return []
    answers = entry.texts("direct_answers")
    if not any(answers):
        raise entry.fault("'direct_answers' is empty")
    return answers


_FORM = Form(
    "official",
    "a list of questions of each split",
    tuple(
        Part(split, "questions", (f"aokvqa_v1p0_{split}.json", f"aokvqa/aokvqa_v1p0_{split}.json")) for split in _SPLITS
    ),
    tuple(coco_folder(split, f"{split}2017") for split in _SPLITS),
    _read,
)
BENCHMARK = Benchmark(
    "a-okvqa",
    "A-OKVQA: image question answering that takes knowledge, answered directly",
    "https://github.com/allenai/aokvqa",
    Modality.IMAGE,
    Task.QA,
    "train, val, test (without answers)",
    (_FORM,),
)
