"""What guessing gives: for each question the training split's most common answer, for captions its commonest one."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from epalm.samples import Prediction, Sample, Task


def chance_predictions(training: Sequence[Sample], samples: Sequence[Sample]) -> list[Prediction]:
    """One guess a sample: by the question's wording where training has it, else over all questions.

    Nothing is guessed (an empty text) for a task that training lacks.
    """
    votes: dict[object, Counter[str]] = defaultdict(Counter)  # by the question, and by the task
    for sample in training:
        if sample.task is Task.CAPTION:
            votes[Task.CAPTION].update(sample.references)
        elif sample.answers:
            answer = max(sample.answers, key=lambda text: sample.answers[text])
            votes[Task.QA][answer] += 1
            votes["question", sample.prompt or ""][answer] += 1
    # Ties go to the first in alphabetical order, so that the guess does not depend on the order of samples.
    best = {key: min(texts, key=lambda text: (-texts[text], text)) for key, texts in votes.items() if texts}
    guesses = ((one, best.get(one.task, "")) for one in samples)
    return [
        Prediction(one.id, best.get(("question", one.prompt or ""), guess) if one.task is Task.QA else guess)
        for one, guess in guesses
    ]
