"""Answers compared after VQA's normalisation: exact match, soft accuracy, and VQA accuracy in its three forms.

Source: Antol et al., VQA, ICCV 2015, https://visualqa.org/evaluation, and the official evaluation (vqaEval.py of
GT-Vision-Lab/VQA, as it is now). Where the page's words and the program differ, the program is followed: published
figures are its figures.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from epalm.errors import MetricError
from epalm.evaluate.metrics.metric import Metric
from epalm.samples import Sample, Task

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # in the order of the published code
_NUMBERS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(max(0, place - 1)) for place, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_COMMA_IN_NUMBER = re.compile(r"(\d)(,)(\d)")
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
ENOUGH = 3  # people who agree make an answer fully right
_FEW_PEOPLE = "it needs three people's answers to a question, as it counts those who agree"
_VERSION = "VQA accuracy is that of the official vqaEval.py as it is now: normalised only where people's answers differ"
_OTHERS = "lmms-eval and LAVIS, as the earlier official script, always normalise the prediction"
_PERIODS_REMOVED = 32  # the published code passes a flag (of value 32) where the count belongs
# The published table of contractions, as the forms with their apostrophes; the few irregular entries follow.
_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll let's ma'am mightn't mightn't've might've mustn't
must've needn't not've o'clock oughtn't shan't she'd've she's should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's
there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = (
    {  # each with one of its apostrophes left out; the table has none with several left out
        form[:place] + form[place + 1 :]: form
        for form in _FORMS.split()
        for place, letter in enumerate(form)
        if letter == "'" and form not in ("let's", "she's")
    }
    | {
        "let's": "let's",
        "she's": "she's",
        "somebody'd": "somebodyd",
        "ow's'at": "'ow's'at",
        "'ows'at": "'ow's'at",
        "'ow'sat": "'ow's'at",
    }
)


@lru_cache(maxsize=1 << 16)  # answers repeat: a few thousand are most of a data set's
def normalise(answer: str) -> str:
    """The answer in the form in which VQA's official evaluation compares: no case, articles, punctuation."""
    words = [_DIGITS.get(word, word) for word in without_punctuation(one_line(answer)).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 16)
def without_punctuation(answer: str) -> str:
    """The answer without the marks that the official evaluation takes away."""
    kept = answer
    for mark in _PUNCTUATION:
        alone = f"{mark} " in answer or f" {mark}" in answer or _COMMA_IN_NUMBER.search(answer)
        kept = kept.replace(mark, "" if alone else " ")
    return _PERIOD.sub("", kept, count=_PERIODS_REMOVED)


def one_line(answer: str) -> str:
    """The answer without white space at its ends, on one line."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(prediction: str, raw_answers: Sequence[str], form: str = "") -> float:
    """VQA accuracy, 0 … 1: min(matches / 3, 1), averaged over leaving out each answer in turn; 0 without answers.

    `form` "": as the official script computes it now, which normalises nothing but white space where all people gave
    the same answer: "Yes" is wrong where all say "yes". "lmms-eval" and "LAVIS", as the earlier official script, always
    normalise the prediction; with the latter, answers that differ lose their punctuation, and nothing else.
    """
    answers = raw_answers if form == "LAVIS" else [one_line(answer) for answer in raw_answers]
    differ = len(set(answers)) > 1
    if differ:
        answers = [without_punctuation(one) if form == "LAVIS" else normalise(one) for one in answers]
    text = normalise(prediction) if differ or form else one_line(prediction)
    matches = [answer == text for answer in answers]
    return sum(min(1.0, (sum(matches) - own) / ENOUGH) for own in matches) / max(1, len(matches))


class ExactMatch(Metric):
    """1 or 0 for each question."""

    name, task, priority = "exact match", Task.QA, 1
    summary = "1 where the prediction is an answer of the highest score"

    def score(self, prediction: str, sample: Sample) -> float:
        """1 when it equals an answer of the highest score after normalisation, else 0; 0 without answers."""
        text, best = normalise(prediction), max(sample.answers.values(), default=0.0)
        return float(any(normalise(answer) == text for answer, score in sample.answers.items() if score == best))


class SoftAccuracy(Metric):
    """The mean score of the answers predicted."""

    name, task = "VQA soft accuracy", Task.QA
    summary = "the score that the data give to the answer predicted, 0 for others"

    def score(self, prediction: str, sample: Sample) -> float:
        """The score, 0 to 1, of the answer that the prediction equals after normalisation."""
        text = normalise(prediction)
        return max((score for answer, score in sample.answers.items() if normalise(answer) == text), default=0.0)


class VqaAccuracy(Metric):
    """One form of VQA accuracy; "": the official one."""

    task, priority = Task.QA, 2
    summary = "min(people who agree / 3, 1), averaged over leaving out each of the ten answers in turn"
    samples = "questions with `raw_answers` of three people or more"

    def __init__(self, form: str) -> None:
        self.form, self.name = form, "VQA accuracy" + (f" ({form})" if form else "")
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
        return vqa_accuracy(prediction, sample.raw_answers, self.form)

    def notes(self, samples: Sequence[Sample], shown: Sequence[str]) -> list[str]:
        """Which questions are left out, and which form of the accuracy this is."""
        if self.form:
            return []
        notes = []
        if few := sum(0 < len(one.raw_answers) < ENOUGH for one in samples):
            notes.append(f"{few:,} of {len(samples):,} questions are left out of {self.name}: {_FEW_PEOPLE}")
        if any(len(one.raw_answers) == ENOUGH for one in samples):
            notes.append(f"{self.name} of three people's answers is 66.67 at most: each is compared with two others")
        others = any(name.startswith(f"{self.name} (") for name in shown)
        return [*notes, f"{_VERSION}; {_OTHERS}" if others else _VERSION]


METRICS = (ExactMatch(), SoftAccuracy(), *map(VqaAccuracy, ("", "lmms-eval", "LAVIS")))
