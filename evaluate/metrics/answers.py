"""Answers compared after VQA's normalisation: exact match and soft accuracy.

Source: Antol et al., VQA, ICCV 2015, https://visualqa.org/evaluation, and the official evaluation (vqaEval.py of
GT-Vision-Lab/VQA, as it is now). Where the page's words and the program differ, the program is followed: published
figures are its figures.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from epalm.evaluate.metrics.metric import Metric
from epalm.samples import Sample, Task

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # in the order of the published code
_NUMBERS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(max(0, place - 1)) for place, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_COMMA_IN_NUMBER = re.compile(r"(\d)(,)(\d)")
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
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


def soft_accuracy(prediction: str, answers: Mapping[str, float]) -> float:
    """The score, 0 … 1, of the answer that the prediction equals after normalisation; 0 when it equals none."""
    text = normalise(prediction)
    return max((score for answer, score in answers.items() if normalise(answer) == text), default=0.0)


def exact_match(prediction: str, answers: Mapping[str, float]) -> float:
    """1 when the prediction equals an answer of the highest score after normalisation, else 0; 0 without answers."""
    text, best = normalise(prediction), max(answers.values(), default=0.0)
    return float(any(normalise(answer) == text for answer, score in answers.items() if score == best))


class ExactMatch(Metric):
    """1 or 0 for each question."""

    name, task, priority = "exact match", Task.QA, 1
    summary = "1 where the prediction is an answer of the highest score"

    def score(self, prediction: str, sample: Sample) -> float:
        """0 or 1."""
        return exact_match(prediction, sample.answers)


class SoftAccuracy(Metric):
    """The mean score of the answers predicted."""

    name, task = "VQA soft accuracy", Task.QA
    summary = "the score that the data give to the answer predicted, 0 for others"

    def score(self, prediction: str, sample: Sample) -> float:
        """0 to 1."""
        return soft_accuracy(prediction, sample.answers)


METRICS = (ExactMatch(), SoftAccuracy())
