"""Lists of {"sent", "label", …}: the form in which LXMERT, VL-T5, VL-Adapter and the paper's authors keep questions.

The label is an answer, or answers with their soft scores, of which there may be none: then any prediction is wrong.
Without a label, a question is not scored.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from epalm.datasets.answers import label_scores
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.sharing import Shared
from epalm.samples import Modality, Sample, Task


def read_labelled(
    path: Path, split: str, modality: Modality, media: Callable[[Entry], str], shared: Shared
) -> Iterator[tuple[Entry, Sample]]:
    """Each question of the list; `media` says where the medium of an entry lies. Raises UsageError."""
    for entry in json_entries(path, ""):
        yield entry, labelled_sample(entry, split, modality, media(entry), shared)


def labelled_sample(entry: Entry, split: str, modality: Modality, media: str, shared: Shared) -> Sample:
    """One question; without an id of its own, it is called by its place in the file. Raises UsageError."""
    scores = label_scores(entry, "label")
    return Sample(
        entry.name("question_id") if "question_id" in entry else f"{entry.file.stem}:{entry.number}",
        modality,
        shared.text(media),
        Task.QA,
        split,
        shared.text(entry.text("sent")),
        shared.scores(scores or {}),
        question_type=shared.maybe(entry.text_or_none("question_type")),
        answer_type=shared.maybe(entry.text_or_none("answer_type")),
        unanswerable=scores is not None and not scores,
    )
