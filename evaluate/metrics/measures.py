"""What a measure is: columns that add up over samples, and the value that their sums give.

A mean has one column. BLEU and METEOR are of the whole corpus: their columns are the counts that they are made of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

ORDERS = 4  # of n-grams in BLEU
BLEU = tuple(f"BLEU-{order}" for order in range(1, ORDERS + 1))
CAPTION_METRICS = (*BLEU, "METEOR", "ROUGE-L", "CIDEr", "SPICE", "SPIDEr")
ANSWER_METRICS = ("exact match", "VQA accuracy", "VQA soft accuracy")
METRICS = (*ANSWER_METRICS, *CAPTION_METRICS)
# What a sample's line calls the columns of a measure that is no mean; all BLEU have the same.
COUNTS: Mapping[str, str] = dict.fromkeys(BLEU, "BLEU counts") | {"METEOR": "METEOR counts"}
EPALM = f"epalm {version('epalm')}"
_TINY, _SMALL = 1e-15, 1e-9  # what pycocoevalcap's BLEU adds to counts, so that none divides by zero
_ALPHA, _BETA, _GAMMA = 0.85, 0.2, 0.6  # of METEOR 1.5, tuned for English

OfSums = Callable[[np.ndarray, "np.ndarray | int"], np.ndarray]  # sums (R, M), of how many samples (R,) → values (R,)


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
        return "per-sample scores" if self.columns.shape[1] == 1 else "per-sample counts"

    @property
    def per_sample(self) -> np.ndarray:
        """Each sample's own score: (N,)."""
        return self.of_sums(self.columns, 1)


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
    if metric in BLEU:
        return bleu_of_sums(BLEU.index(metric) + 1)
    return meteor_of_sums if metric == "METEOR" else _mean


def bleu_of_sums(order: int) -> OfSums:
    """BLEU of n-grams up to `order`, from sums (R, 10): matches and guesses of each n, lengths said and of references.

    Source: Papineni et al., BLEU, ACL 2002, with the smoothing of pycocoevalcap: a 1e-15 for each empty count.
    """

    def value(sums: np.ndarray, count: np.ndarray | int) -> np.ndarray:
        matches, guesses = sums[:, :order], sums[:, ORDERS : ORDERS + order]
        precision = np.prod((matches + _TINY) / (guesses + _SMALL), axis=1) ** (1 / order)
        ratio = (sums[:, -2] + _TINY) / (sums[:, -1] + _SMALL)
        # A ratio of nearly zero stands for nothing said: its penalty is zero.
        penalty = np.exp(np.minimum(0.0, 1 - 1 / np.maximum(ratio, _TINY)))
        return np.asarray(precision * penalty)

    return value


def meteor_of_sums(sums: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """METEOR from sums (R, 6): matched words and length of what was said, both of the reference, chunks, and words.

    The first four are weighted; the last are the words that matched, the mean of both sides.
    Source: Denkowski and Lavie, Meteor Universal, WMT 2014.
    """
    matched, said, wanted_matched, wanted, chunks, words = sums.T
    precision, recall = _ratio(matched, said), _ratio(wanted_matched, wanted)
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    return np.asarray(mean * (1 - _GAMMA * _ratio(chunks, words) ** _BETA))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, zero where there is nothing."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def _mean(sums: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    return np.asarray(sums[:, 0] / count)
