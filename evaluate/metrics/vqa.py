"""VQA accuracy in the three forms in which it is published: the official script's, lmms-eval's and LAVIS'.

Source: Antol et al., VQA, ICCV 2015, and vqaEval.py of GT-Vision-Lab/VQA, as it is now.
"""

from collections.abc import Callable, Sequence

from epalm.errors import MetricError
from epalm.evaluate.metrics.answers import normalise, one_line, without_punctuation
from epalm.evaluate.metrics.metric import Metric
from epalm.samples import Sample, Task

ENOUGH = 3  # people who agree make an answer fully right
_FEW_PEOPLE = "it needs three people's answers to a question, as it counts those who agree"
_VERSION = "VQA accuracy is that of the official vqaEval.py as it is now: normalised only where people's answers differ"
_OTHERS = "lmms-eval and LAVIS, as the earlier official script, always normalise the prediction"


def vqa_accuracy(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA's official accuracy, 0 … 1: min(matches / 3, 1), averaged over leaving out each answer in turn.

    0 without answers. When all people gave the same answer the official evaluation normalises nothing but white space:
    "Yes" is then wrong where all ten say "yes".
    """
    answers = [one_line(answer) for answer in raw_answers]
    if len(set(answers)) > 1:
        return _agreement(normalise(prediction), [normalise(answer) for answer in answers])
    return _agreement(one_line(prediction), answers)


def vqa_accuracy_lmms(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA accuracy as lmms-eval computes it: the prediction is always normalised, answers where they differ."""
    answers = [one_line(answer) for answer in raw_answers]
    if len(set(answers)) > 1:
        answers = [normalise(answer) for answer in answers]
    return _agreement(normalise(prediction), answers)


def vqa_accuracy_lavis(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA accuracy as LAVIS and the earlier official script compute it.

    The prediction is always normalised; answers lose their punctuation where they differ, and nothing else.
    """
    differ = len(set(raw_answers)) > 1
    return _agreement(
        normalise(prediction), [without_punctuation(one) for one in raw_answers] if differ else raw_answers
    )


def _agreement(prediction: str, answers: Sequence[str]) -> float:
    matches = [answer == prediction for answer in answers]
    return sum(min(1.0, (sum(matches) - own) / ENOUGH) for own in matches) / max(1, len(matches))


class VqaAccuracy(Metric):
    """One form of it: the accuracy of a prediction, and the name of the form, "" for the official one."""

    task, priority = Task.QA, 2
    summary = "min(people who agree / 3, 1), averaged over leaving out each of the ten answers in turn"
    samples = "questions with `raw_answers` of three people or more"

    def __init__(self, accuracy: Callable[[str, Sequence[str]], float], form: str = "") -> None:
        self.accuracy, self.name = accuracy, "VQA accuracy" + (f" ({form})" if form else "")
        self.other_form_of = "VQA accuracy" if form else ""

    def select(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Those that three people or more answered, and where there are such, those without a right answer."""
        if any(len(one.raw_answers) >= ENOUGH for one in samples):
            return [one for one in samples if len(one.raw_answers) >= ENOUGH or one.unanswerable]
        if any(one.raw_answers for one in samples):
            raise MetricError(_FEW_PEOPLE, hint="VQA soft accuracy and exact match need one answer")
        return ()

    def score(self, prediction: str, sample: Sample) -> float:
        """0 to 1."""
        return self.accuracy(prediction, sample.raw_answers)

    def notes(self, samples: Sequence[Sample], shown: Sequence[str]) -> list[str]:
        """Which questions are left out, and which form of the accuracy this is."""
        if self.name not in shown or self.other_form_of:
            return []
        found = []
        if few := sum(0 < len(one.raw_answers) < ENOUGH for one in samples):
            found.append(f"{few:,} of {len(samples):,} questions are left out of {self.name}: {_FEW_PEOPLE}")
        if any(len(one.raw_answers) == ENOUGH for one in samples):
            found.append(f"{self.name} of three people's answers is 66.67 at most: each is compared with two others")
        others = any(one.other_form_of and one.name in shown for one in METRICS)
        return [*found, f"{_VERSION}; {_OTHERS}" if others else _VERSION]


METRICS = (
    VqaAccuracy(vqa_accuracy),
    VqaAccuracy(vqa_accuracy_lmms, "lmms-eval"),
    VqaAccuracy(vqa_accuracy_lavis, "LAVIS"),
)
