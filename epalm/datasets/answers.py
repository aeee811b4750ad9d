"""What samples are built from: several people's answers with scores, equal values kept once, ids that are unique."""

import gc
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache

from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

ENOUGH = 3  # people who agree make an answer fully right


def agreed_scores(raw_answers: Sequence[str]) -> dict[str, float]:
    """Each answer with VQA's official accuracy of giving it, before normalisation: of ten, 0.3, 0.6, 0.9, 1, …

    That is min(matches / 3, 1), averaged over leaving out each person in turn (Antol et al., VQA, ICCV 2015). It says
    nothing of one or two people, where leaving out one leaves no three who agree: their answers have their shares.
    """
    people = len(raw_answers)
    counts = Counter(filter(None, map(str.strip, raw_answers)))
    if people < ENOUGH:
        return {answer: count / people for answer, count in counts.items()}
    return {answer: score for answer, count in counts.items() if (score := _agreed(count, people)) > 0}


@lru_cache(maxsize=1024)
def _agreed(count: int, people: int) -> float:
    own, others = min(1.0, (count - 1) / ENOUGH), min(1.0, count / ENOUGH)
    return round((count * own + (people - count) * others) / people, 6)


# The first of equal texts: samples often share prompts, media and answers.
share = lru_cache(maxsize=1 << 16)(str)


def build_sample(
    name: str,
    modality: Modality,
    media: str,
    task: Task,
    split: str,
    prompt: str | None = None,
    answers: Mapping[str, float] | None = None,
    raw_answers: Sequence[str] = (),
    references: Sequence[str] = (),
    types: tuple[str | None, str | None] = (None, None),
) -> Sample:
    """A sample whose texts and answers are shared with others.

    Without `answers`, they are scored by how many of the `raw_answers` agree; where none is given, any is wrong.
    """
    scores = agreed_scores(raw_answers) if answers is None else answers
    return Sample(
        name,
        modality,
        share(media),
        task,
        share(split),
        prompt and share(prompt),
        _share_items(tuple(scores.items())),
        tuple(map(share, raw_answers)),
        tuple(map(share, references)),
        types[0] and share(types[0]),
        types[1] and share(types[1]),
        unanswerable=not scores and (answers is not None or bool(raw_answers)),
    )


@lru_cache(maxsize=1 << 16)
def _share_items(items: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
    return {share(text): float(score) for text, score in items}


class UniqueIds:
    """Ids are unique among the samples of one split and modality: what predictions are told apart by."""

    def __init__(self) -> None:
        self._seen = defaultdict[tuple[str, Modality], set[str]](set)

    def add(self, sample: Sample) -> None:
        """Note a sample's id. Raises UsageError where it is used twice."""
        ids = self._seen[sample.split, sample.modality]
        if sample.id in ids:
            raise UsageError(
                f"id {sample.id!r} is used twice in split {sample.split!r}", hint="make ids unique in a split"
            )
        ids.add(sample.id)


@contextmanager
def without_cycles() -> Iterator[None]:
    """Without the search for reference cycles: samples have none, and walking a million again and again takes long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
