"""Answers compared: VQA's official accuracy and normalisation, soft accuracy and exact match.

Source: Antol et al., VQA, ICCV 2015, and https://visualqa.org/evaluation. Where the words of that page and what the
official evaluation (vqaEval.py of GT-Vision-Lab/VQA, as it is now) computes differ, the latter is meant: published
figures are its figures. Two other forms of it are about, in which many figures were published as well.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from epalm.evaluate.metrics.contractions import CONTRACTIONS

_PUNCTUATION = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
_NUMBERS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(max(0, place - 1)) for place, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_COMMA_IN_NUMBER = re.compile(r"(\d)(,)(\d)")
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_PERIODS_REMOVED = 32  # the published code passes a flag (of value 32) where the count belongs
ENOUGH = 3  # people who agree make an answer fully right


@lru_cache(maxsize=1 << 16)  # answers repeat: a few thousand are most of a data set's
def normalise(answer: str) -> str:
    """The answer in the form in which VQA's official evaluation compares: no case, articles, punctuation."""
    words = [_DIGITS.get(word, word) for word in _without_marks(_stripped(answer)).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 16)
def _without_marks(answer: str) -> str:
    kept = answer
    for mark in _PUNCTUATION:
        alone = f"{mark} " in answer or f" {mark}" in answer or _COMMA_IN_NUMBER.search(answer)
        kept = kept.replace(mark, "" if alone else " ")
    return _PERIOD.sub("", kept, count=_PERIODS_REMOVED)


def vqa_accuracy(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA's official accuracy, 0 … 1: min(matches / 3, 1), averaged over leaving out each answer in turn.

    0 without answers. When all people gave the same answer the official evaluation normalises nothing but white space:
    "Yes" is then wrong where all ten say "yes".
    """
    answers = [_stripped(answer) for answer in raw_answers]
    if len(set(answers)) > 1:
        return _agreement(normalise(prediction), [normalise(answer) for answer in answers])
    return _agreement(_stripped(prediction), answers)


def vqa_accuracy_lmms(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA accuracy as lmms-eval computes it: the prediction is always normalised, answers where they differ."""
    answers = [_stripped(answer) for answer in raw_answers]
    if len(set(answers)) > 1:
        answers = [normalise(answer) for answer in answers]
    return _agreement(normalise(prediction), answers)


def vqa_accuracy_lavis(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA accuracy as LAVIS and the earlier official script compute it.

    The prediction is always normalised; answers lose their punctuation where they differ, and nothing else.
    """
    differ = len(set(raw_answers)) > 1
    return _agreement(normalise(prediction), [_without_marks(one) for one in raw_answers] if differ else raw_answers)


def _agreement(said: str, answers: Sequence[str]) -> float:
    matches = [answer == said for answer in answers]
    return sum(min(1.0, (sum(matches) - own) / ENOUGH) for own in matches) / max(1, len(matches))


def soft_accuracy(prediction: str, answers: Mapping[str, float]) -> float:
    """The score, 0 … 1, of the answer that the prediction equals after normalisation; 0 when it equals none."""
    said = normalise(prediction)
    return max((score for answer, score in answers.items() if normalise(answer) == said), default=0.0)


def exact_match(prediction: str, answers: Mapping[str, float]) -> float:
    """1 when the prediction equals an answer of the highest score after normalisation, else 0; 0 without answers."""
    said, best = normalise(prediction), max(answers.values(), default=0.0)
    return float(any(normalise(answer) == said for answer, score in answers.items() if score == best))


def _stripped(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
