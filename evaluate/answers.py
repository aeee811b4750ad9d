"""Answers compared: VQA's official accuracy and normalisation, soft accuracy and exact match.

Source: Antol et al., VQA, ICCV 2015, and https://visualqa.org/evaluation. Where the words of that page and what the
official evaluation computes differ, the latter is meant: published figures are its figures.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from epalm.evaluate.contractions import CONTRACTIONS

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
_ENOUGH = 3  # people who agree make an answer fully right


@lru_cache(maxsize=1 << 16)  # answers repeat: a few thousand are most of a data set's
def normalise(answer: str) -> str:
    """The answer in the form in which VQA's official evaluation compares: no case, articles, punctuation."""
    answer = _stripped(answer)
    kept = answer
    for mark in _PUNCTUATION:
        alone = f"{mark} " in answer or f" {mark}" in answer or _COMMA_IN_NUMBER.search(answer)
        kept = kept.replace(mark, "" if alone else " ")
    kept = _PERIOD.sub("", kept, count=_PERIODS_REMOVED)
    words = [_DIGITS.get(word, word) for word in kept.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, raw_answers: Sequence[str]) -> float:
    """VQA's official accuracy, 0 … 1: min(matches / 3, 1), averaged over leaving out each answer in turn.

    0 without answers. When all people gave the same answer the official evaluation normalises nothing but white space:
    "Yes" is then wrong where all ten say "yes".
    """
    said, answers = _stripped(prediction), [_stripped(answer) for answer in raw_answers]
    if len(set(answers)) > 1:
        said, answers = normalise(said), [normalise(answer) for answer in answers]
    matches = [answer == said for answer in answers]
    return sum(min(1.0, (sum(matches) - own) / _ENOUGH) for own in matches) / max(1, len(matches))


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
