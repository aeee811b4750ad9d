"""How sure a score is: bootstrap intervals over samples, and paired tests of differences. Knows numbers only.

A measure adds up columns over samples and makes its value of the sums, so a resample is a vector of weights and all
resamples are one matrix product. N: samples; M: columns; R: resamples.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile intervals); Noreen, Computer-Intensive
Methods for Testing Hypotheses, 1989 (approximate randomisation).
"""

from collections.abc import Iterator

import numpy as np

from epalm.evaluate.measures import Measure

RESAMPLES = 1000
SHUFFLES = 10_000
LEVEL = 0.95
SEED = 0
INTERVAL = f"percentile bootstrap over samples, {RESAMPLES} resamples, seed {SEED}"
TEST = f"paired approximate randomisation, two-sided, {SHUFFLES} shuffles, seed {SEED}"
_AT_ONCE = 1 << 20  # draws held in memory: what keeps it flat whatever N is
_EQUAL = 1e-12  # differences of a shuffle and of the data that differ by less are rounding

Interval = tuple[float, float]


def intervals(measures: dict[str, Measure]) -> dict[str, Interval]:
    """The 95 % interval of each measure; all are of the same N samples, and resampled alike."""
    if not measures:
        return {}
    columns = [measure.columns for measure in measures.values()]
    sums = _split(resampled_sums(np.concatenate(columns, axis=1)), columns)
    count = len(columns[0])
    return {
        name: _percentiles(measure.of_sums(part, count))
        for (name, measure), part in zip(measures.items(), sums, strict=True)
    }


def resampled_sums(columns: np.ndarray) -> np.ndarray:
    """Sums (R, M) of the columns (N, M) over R draws of N samples with replacement."""
    rng, count = np.random.default_rng(SEED), len(columns)
    return np.concatenate(
        [
            _weights(rng.integers(0, count, (rows, count), dtype=np.int32), count) @ columns
            for rows in _chunks(RESAMPLES, count)
        ]
    )


def paired_interval(first: Measure, second: Measure) -> Interval:
    """The 95 % interval of `second - first`, both of the same samples in the same order, resampled together."""
    columns = [first.columns, second.columns]
    one, other = _split(resampled_sums(np.concatenate(columns, axis=1)), columns)
    count = len(first.columns)
    return _percentiles(second.of_sums(other, count) - first.of_sums(one, count))


def p_value(first: Measure, second: Measure) -> float:
    """How often a difference as large comes about when each sample's two results are swapped at random.

    At least 1 / (shuffles + 1).
    """
    count = len(first.columns)
    totals = first.columns.sum(axis=0), second.columns.sum(axis=0)
    observed = _difference(first, totals[0][None], totals[1][None], count)[0]
    change = second.columns - first.columns
    change = change[change.any(axis=1)]  # swapping equal results changes nothing
    if not len(change):
        return 1.0
    rng, as_large = np.random.default_rng(SEED), 0
    for rows in _chunks(SHUFFLES, len(change)):
        moved = rng.integers(0, 2, (rows, len(change)), dtype=np.int8).astype(np.float64) @ change
        shuffled = _difference(first, totals[0] + moved, totals[1] - moved, count)
        as_large += int((np.abs(shuffled) >= abs(observed) - _EQUAL).sum())
    return (as_large + 1) / (SHUFFLES + 1)


def _difference(measure: Measure, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    return measure.of_sums(second, count) - measure.of_sums(first, count)


def _weights(draws: np.ndarray, count: int) -> np.ndarray:
    """How often each resample drew each sample: (R, N)."""
    rows = len(draws)
    places = draws + np.arange(rows, dtype=np.int64)[:, None] * count
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _percentiles(values: np.ndarray) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _chunks(rounds: int, count: int) -> Iterator[int]:
    most = max(1, _AT_ONCE // count)
    for start in range(0, rounds, most):
        yield min(most, rounds - start)


def _split(sums: np.ndarray, columns: list[np.ndarray]) -> list[np.ndarray]:
    return np.split(sums, np.cumsum([part.shape[1] for part in columns])[:-1], axis=1)
