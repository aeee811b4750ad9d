"""Several people's answers, and labels, as answers with scores."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from epalm.datasets.entries import Entry

ENOUGH = 3  # people who agree make an answer fully right


def agreed_scores(raw_answers: Sequence[str]) -> dict[str, float]:
    """Each answer with VQA's official accuracy of giving it, before normalisation: of ten, 0.3, 0.6, 0.9, 1, …

    That is min(matches / 3, 1), averaged over leaving out each person in turn (Antol et al., VQA, ICCV 2015). It says
    nothing of one or two people, where leaving out one leaves no three who agree: their answers have their shares.
    """
    people = len(raw_answers)
    said = Counter(filter(None, map(str.strip, raw_answers)))
    if people < ENOUGH:
        return {answer: count / people for answer, count in said.items()}
    return {answer: score for answer, count in said.items() if (score := _agreed(count, people)) > 0}


@lru_cache(maxsize=1024)
def _agreed(count: int, people: int) -> float:
    own, others = min(1.0, (count - 1) / ENOUGH), min(1.0, count / ENOUGH)
    return round((count * own + (people - count) * others) / people, 6)


def label_scores(entry: Entry, key: str) -> dict[str, float] | None:
    """A label: a text, or answers with their scores, of which there may be none. None: no label at all."""
    if key not in entry:
        return None
    label = entry.get(key)
    if isinstance(label, str):
        return {entry.text(key): 1.0}
    if not isinstance(label, dict):
        raise entry.fault(f"{key!r} must be an answer, or answers with their scores")
    scores = {}
    for answer, score in label.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise entry.fault(f"{key!r} scores {answer[:60]!r} with {score!r}; it must be from 0 to 1")
        if score and answer.strip():
            scores[answer.strip()] = float(score)
    return scores
