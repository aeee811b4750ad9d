"""What guessing gives: for each question the training split's most common answer, for captions its commonest one."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from epalm.samples import Prediction, Sample, Task


def chance_predictions(training: Sequence[Sample], samples: Sequence[Sample]) -> list[Prediction]:
    """One guess a sample: by the question's wording where training has it, else over all questions.

    Nothing is guessed (an empty text) for a task that training lacks.
    """
    by_prompt: dict[str, Counter[str]] = defaultdict(Counter)
    answers: Counter[str] = Counter()
    captions: Counter[str] = Counter()
    for sample in training:
        if sample.task is Task.CAPTION:
            captions.update(sample.references)
        elif sample.answers:
            answer = max(sample.answers, key=lambda text: sample.answers[text])
            answers[answer] += 1
            by_prompt[sample.prompt or ""][answer] += 1
    return [Prediction(s.id, _likeliest(_votes(s, by_prompt, answers, captions))) for s in samples]


def _votes(
    sample: Sample, by_prompt: dict[str, Counter[str]], answers: Counter[str], captions: Counter[str]
) -> Counter[str]:
    if sample.task is Task.CAPTION:
        return captions
    return by_prompt.get(sample.prompt or "", answers)


def _likeliest(votes: Counter[str]) -> str:
    # Ties go to the first in alphabetical order, so that the guess does not depend on the order of samples.
    return min(votes, key=lambda text: (-votes[text], text), default="")
