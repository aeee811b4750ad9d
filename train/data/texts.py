"""All that a data set's items may become as texts, tokenised once. Knows the text format, and no samples.

Letters: N items, M targets of all items together.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np

from epalm.train.data.text import TextFormat


class Text(NamedTuple):
    """Token ids (T,) int64 of one training text; its target begins at `target`."""

    ids: np.ndarray
    target: int


class Texts:
    """Of every item what is given, and its targets; targets are numbered through, item after item."""

    def __init__(
        self,
        text: TextFormat,
        given: Sequence[str],
        targets: Sequence[Sequence[str]],
        shares: Sequence[Sequence[float]],
    ) -> None:
        """`given` are the N items' questions, empty for a caption; `shares` are cumulative, the last of each is 1."""
        self._text = text
        # What several items have in common is tokenised once.
        questions: dict[str, int] = {}
        self._given = _numbered(given, questions)  # (N,)
        answers: dict[str, int] = {}
        self._target = _numbered((target.strip() for target in chain.from_iterable(targets)), answers)  # (M,)
        self._target += len(questions)
        self._rows = [*text.questions(list(questions)), *text.tokenise(list(answers))]
        self._lengths = np.fromiter(map(len, self._rows), np.int64, len(self._rows))
        self._starts = np.fromiter(accumulate(map(len, targets), initial=0), np.int64, len(targets) + 1)
        self._shares = np.fromiter(chain.from_iterable(shares), np.float64, len(self._target))  # (M,)
        self._shares += np.repeat(np.arange(len(targets)), np.diff(self._starts))

    def draw(self, chances: np.ndarray) -> np.ndarray:
        """Each item's target (N,), in proportion to its share; `chances` (N,) are in [0, 1)."""
        found: np.ndarray = np.searchsorted(self._shares, np.arange(len(chances)) + chances, side="right")
        found.clip(self._starts[:-1], self._starts[1:] - 1, out=found)  # a sum may round up to the next item
        return found

    def lengths(self, targets: np.ndarray) -> np.ndarray:
        """How many tokens (N,) each item's text has, with these targets (N,)."""
        lengths: np.ndarray = self._lengths[self._given] + self._lengths[self._target[targets]] + 2  # both ends
        return lengths

    def decoded_lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every target: tokens (M,) that decoding starts from, and tokens (M,) when it has produced the target."""
        given = 1 + np.repeat(self._lengths[self._given], np.diff(self._starts))
        return given, given + self._lengths[self._target]

    def text(self, item: int, target: int) -> Text:
        """An item's text with one of its targets."""
        given, wanted = self._rows[self._given[item]], self._rows[self._target[target]]
        return Text(np.concatenate(([self._text.bos], given, wanted, [self._text.eos])), 1 + len(given))


def _numbered(words: Iterable[str], numbers: dict[str, int]) -> np.ndarray:
    """The number of each; new ones are given the next."""
    return np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
