"""What a measure is: columns that add up over samples, and the value that their sums give.

A mean has one column. BLEU is of the whole corpus: its columns are the counts that it is made of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

ORDERS = 4  # of n-grams in BLEU
BLEU = tuple(f"BLEU-{order}" for order in range(1, ORDERS + 1))
BLEU_COUNTS = "BLEU counts"  # what a sample's line has for all four of them
CAPTION_METRICS = (*BLEU, "METEOR", "ROUGE-L", "CIDEr", "SPICE", "SPIDEr")
ANSWER_METRICS = ("exact match", "VQA accuracy", "VQA soft accuracy")
METRICS = (*ANSWER_METRICS, *CAPTION_METRICS)
EPALM = f"epalm {version('epalm')}"
_TINY, _SMALL = 1e-15, 1e-9  # what pycocoevalcap's BLEU adds to counts, so that none divides by zero

OfSums = Callable[[np.ndarray, int], np.ndarray]  # sums (R, M) and how many samples → values (R,)


@dataclass(frozen=True)
class Measure:
    """One measure of N samples: its value, columns (N, M) and what makes values of sums of columns."""

    value: float
    columns: np.ndarray
    of_sums: OfSums
    backend: str

    @property
    def resampled(self) -> str:
        """What a bootstrap draws: per-sample scores, or counts that the corpus score is computed of anew."""
        return "per-sample scores" if self.columns.shape[1] == 1 else "per-sample n-gram counts and lengths"


@dataclass(frozen=True)
class Skipped:
    """A measure that could not be computed: why, and what would enable it."""

    metric: str
    reason: str
    hint: str | None


def mean_measure(scores: Sequence[float] | np.ndarray, backend: str, value: float | None = None) -> Measure:
    """A mean over samples; `value` is the backend's own figure where it gives one."""
    column = np.asarray(scores, dtype=np.float64)[:, None]
    return Measure(float(column.mean()) if value is None else value, column, _mean, backend)


def of_sums(metric: str) -> OfSums:
    """What makes values of sums for the measure of that name."""
    return bleu_of_sums(BLEU.index(metric) + 1) if metric in BLEU else _mean


def bleu_of_sums(order: int) -> OfSums:
    """BLEU of n-grams up to `order`, from sums (R, 10): matches and guesses of each n, lengths said and of references.

    Source: Papineni et al., BLEU, ACL 2002, with the smoothing of pycocoevalcap: a 1e-15 for each empty count.
    """

    def value(sums: np.ndarray, count: int) -> np.ndarray:
        matches, guesses = sums[:, :order], sums[:, ORDERS : ORDERS + order]
        precision = np.prod((matches + _TINY) / (guesses + _SMALL), axis=1) ** (1 / order)
        ratio = (sums[:, -2] + _TINY) / (sums[:, -1] + _SMALL)
        # A ratio of nearly zero stands for nothing said: its penalty is zero.
        penalty = np.exp(np.minimum(0.0, 1 - 1 / np.maximum(ratio, _TINY)))
        return np.asarray(precision * penalty)

    return value


def _mean(sums: np.ndarray, count: int) -> np.ndarray:
    return np.asarray(sums[:, 0] / count)
