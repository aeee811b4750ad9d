"""TextVQA: questions about what is written in a picture, {"question", "question_id", "image_id", "answers": [ten]}."""

from collections.abc import Iterator

from epalm.datasets.answers import agreed_scores
from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.open_images import PICTURES, picture
from epalm.samples import Modality, Sample, Task


def _read(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("questions"):
        for entry in json_entries(path, "data"):
            raw = () if split == "test" else files.shared.texts(entry.texts("answers"))
            scores = files.shared.scores(agreed_scores(raw))
            yield (
                entry,
                Sample(
                    entry.name("question_id"),
                    Modality.IMAGE,
                    picture(files, split, entry),
                    Task.QA,
                    split,
                    files.shared.text(entry.text("question")),
                    scores,
                    raw,
                    unanswerable=bool(raw) and not scores,
                ),
            )


BENCHMARK = Benchmark(
    "textvqa",
    "TextVQA: questions about what is written in a picture",
    "https://textvqa.org/dataset/",
    Modality.IMAGE,
    Task.QA,
    "train, val, test (without answers)",
    (
        Form(
            "official",
            "a file of questions for each split",
            tuple(Part(split, "questions", (f"TextVQA_0.5.1_{split}.json",)) for split in ("train", "val", "test")),
            PICTURES,
            _read,
        ),
    ),
)
