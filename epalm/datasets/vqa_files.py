"""Questions and annotations in the form of the VQA benchmark, which others of its kind share.

Questions: {"questions": [{"image_id", "question", "question_id"}, …]}. Annotations: {"annotations": [{"question_id",
"question_type", "answer_type", "answers": [{"answer"}, …]}, …]} (visualqa.org/vqa_v1_download.html).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from epalm.datasets.answers import agreed_scores
from epalm.datasets.entries import Entry, json_entries
from epalm.datasets.sharing import Shared
from epalm.samples import Modality, Sample, Task

_MOST_IMAGES = 10**12  # COCO's file names have twelve digits
Annotation = tuple[tuple[str, ...], str | None, str | None]  # raw answers, question type, answer type
_UNANSWERED: Annotation = ((), None, None)


def read_questions(
    questions: Path, annotations: Path | None, split: str, media: Callable[[int], str], shared: Shared
) -> Iterator[tuple[Entry, Sample]]:
    """Each question with its answers; without annotations, none has any. `media` says where an image lies.

    Raises:
        UsageError: a file or entry that cannot be used, a question without annotation, or one without question.
    """
    known = read_annotations(annotations, shared) if annotations else {}
    for entry in json_entries(questions, "questions"):
        name = entry.name("question_id")
        if annotations and name not in known:
            raise entry.fault(f"question_id {name} has no annotation in {annotations}", "take both of one version")
        raw, question_type, answer_type = known.pop(name) if annotations else _UNANSWERED
        scores = shared.scores(agreed_scores(raw))
        yield (
            entry,
            Sample(
                name,
                Modality.IMAGE,
                shared.text(media(entry.number_in("image_id", _MOST_IMAGES))),
                Task.QA,
                split,
                shared.text(entry.text("question")),
                scores,
                raw,
                question_type=question_type,
                answer_type=answer_type,
                unanswerable=bool(raw) and not scores,
            ),
        )
    if known:
        raise entry.fault(
            f"the questions end there, and {annotations} has {len(known):,} more: question_id {next(iter(known))}, …",
            hint="the questions may be cut off, or of another version: download both again",
        )


def read_annotations(path: Path, shared: Shared) -> dict[str, Annotation]:
    """What people answered, by question id."""
    known: dict[str, Annotation] = {}
    for entry in json_entries(path, "annotations"):
        name = entry.name("question_id")
        if name in known:
            raise entry.fault(f"question_id {name} is used twice")
        raw = shared.texts(entry.texts("answers", "answer"))
        question_type, answer_type = (shared.maybe(entry.text_or_none(key)) for key in ("question_type", "answer_type"))
        known[name] = (raw, question_type, answer_type)
    return known
