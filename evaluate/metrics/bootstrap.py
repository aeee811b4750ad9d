"""How sure a score is: bootstrap intervals over media, and paired tests of differences. Knows numbers only.

Samples about one medium are not independent, so that what is drawn, or swapped, is all samples of a medium. A measure
adds up columns over samples and makes its value of the sums: a resample is a vector of weights over media, and all
resamples are one matrix product. N: samples; G: media; M: columns; R: resamples.

Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (whole clusters are drawn);
Efron, Better Bootstrap Confidence Intervals, JASA 1987 (bias-corrected and accelerated, BCa); Hesterberg, What Teachers
Should Know about the Bootstrap, The American Statistician 2015 (wider levels, for intervals of few are too narrow);
Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989 (approximate randomisation).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from epalm.evaluate.metrics.measures import Measure

RESAMPLES = 2000
SHUFFLES = 10_000
LEVEL = 0.95
SEED = 0
FEWEST = 6  # media: of fewer, no interval holds what it says
TEST = f"paired approximate randomisation over media, two-sided, {SHUFFLES} shuffles, seed {SEED}"
_AT_ONCE = 1 << 20  # draws held in memory: what keeps it flat whatever N is
_EQUAL = 1e-12  # what differs by less differs by rounding
_NORMAL = NormalDist()

Interval = tuple[float, float]
_Value = Callable[[np.ndarray], np.ndarray]  # sums (R, M + 1), the last of them counts of samples → values (R,)


def resampling(media: int | None = None) -> str:
    """How intervals over so many media come about, in words, or that there are none."""
    if media is not None and media < FEWEST:
        return f"no interval: {media} {'medium' if media == 1 else 'media'}"
    over = "media" if media is None else f"{media:,} media"
    return f"BCa bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}"


def count_media(media: Sequence[str]) -> int:
    """How many media samples are of."""
    return len(set(media))


def intervals(measures: Mapping[str, Measure], media: Sequence[str] | None = None) -> dict[str, Interval | None]:
    """The 95 % interval of each measure; all are of the same N samples, and resampled alike.

    `media` says which medium each sample is of; None: each of its own. There is no interval, but None, where the media
    are fewer than six, or all alike.
    """
    columns = {name: measure.columns for name, measure in measures.items()}
    parts, places = _by_medium(columns, media)
    drawn = resampled_sums(parts) if len(parts) >= FEWEST else parts
    return {name: _interval(_value(measures[name], place), parts, drawn) for name, place in places.items()}


def paired_interval(first: Measure, second: Measure, media: Sequence[str] | None = None) -> Interval | None:
    """The 95 % interval of `second - first`, both of the same samples in the same order, resampled together."""
    parts, places = _by_medium({"first": first.columns, "second": second.columns}, media)
    if len(parts) < FEWEST:
        return None
    if np.array_equal(first.columns, second.columns):
        return 0.0, 0.0
    one, other = _value(first, places["first"]), _value(second, places["second"])
    return _interval(lambda sums: other(sums) - one(sums), parts, resampled_sums(parts))


def p_value(first: Measure, second: Measure, media: Sequence[str] | None = None) -> float:
    """How often a difference as large comes about when each medium's two results are swapped at random.

    At least 1 / (shuffles + 1).
    """
    count = len(first.columns)
    totals = first.columns.sum(axis=0), second.columns.sum(axis=0)
    observed = _difference(first, totals[0][None], totals[1][None], count)[0]
    change = _by_medium({"": second.columns - first.columns}, media)[0][:, :-1]
    change = change[change.any(axis=1)]  # swapping equal results changes nothing
    if not len(change):
        return 1.0
    rng, as_large = np.random.default_rng(SEED), 0
    for rows in _chunks(SHUFFLES, len(change)):
        moved = rng.integers(0, 2, (rows, len(change)), dtype=np.int8).astype(np.float64) @ change
        shuffled = _difference(first, totals[0] + moved, totals[1] - moved, count)
        as_large += int((np.abs(shuffled) >= abs(observed) - _EQUAL).sum())
    return (as_large + 1) / (SHUFFLES + 1)


def resampled_sums(parts: np.ndarray) -> np.ndarray:
    """Sums (R, M) of the parts (G, M) over R draws of G media with replacement."""
    rng, count = np.random.default_rng(SEED), len(parts)
    return np.concatenate(
        [
            _weights(rng.integers(0, count, (rows, count), dtype=np.int32), count) @ parts
            for rows in _chunks(RESAMPLES, count)
        ]
    )


def _by_medium(columns: Mapping[str, np.ndarray], media: Sequence[str] | None) -> tuple[np.ndarray, dict[str, slice]]:
    """Each medium's sums of all columns, and last how many samples it has (G, M + 1); and where whose columns are."""
    whole = np.concatenate([*columns.values(), np.ones((len(next(iter(columns.values()))), 1))], axis=1)
    if media is not None:
        order: dict[str, int] = {}
        places = [order.setdefault(one, len(order)) for one in media]
        sums = np.zeros((len(order), whole.shape[1]))
        np.add.at(sums, places, whole)
        whole = sums
    ends = np.cumsum([part.shape[1] for part in columns.values()]).tolist()
    return whole, {name: slice(end - columns[name].shape[1], end) for name, end in zip(columns, ends, strict=True)}


def _value(measure: Measure, place: slice) -> _Value:
    return lambda sums: measure.of_sums(sums[:, place], sums[:, -1])


def _interval(value: _Value, parts: np.ndarray, drawn: np.ndarray) -> Interval | None:
    """BCa: the resamples' quantiles at levels that are shifted by their bias and by the skewness of what media add."""
    count, whole = len(parts), parts.sum(axis=0)
    if count < FEWEST:
        return None
    without = value(whole - parts)  # each medium in turn
    spread = without.mean() - without
    if np.abs(spread).max() <= _EQUAL:
        return None
    values, observed = value(drawn), value(whole[None])[0]
    below = (values < observed - _EQUAL).mean() + 0.5 * (np.abs(values - observed) <= _EQUAL).mean()
    bias = _NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    skew = float((spread**3).sum() / (6 * (spread**2).sum() ** 1.5))
    reach = (count / (count - 1)) ** 0.5 * _student(1 - (1 - LEVEL) / 2, count - 1)
    levels = [_NORMAL.cdf(bias + (bias + one) / (1 - skew * (bias + one))) for one in (-reach, reach)]
    low, high = np.quantile(values, levels)
    return float(low), float(high)


def _student(level: float, freedom: int) -> float:
    """The quantile of Student's t, to a thousandth for five degrees of freedom and more.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = _NORMAL.inv_cdf(level)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum((term / freedom**power for power, term in enumerate(terms)), 0.0)


def _difference(measure: Measure, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    return measure.of_sums(second, count) - measure.of_sums(first, count)


def _weights(draws: np.ndarray, count: int) -> np.ndarray:
    """How often each resample drew each medium: (R, G)."""
    rows = len(draws)
    places = draws + np.arange(rows, dtype=np.int64)[:, None] * count
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _chunks(rounds: int, count: int) -> Iterator[int]:
    most = max(1, _AT_ONCE // count)
    for start in range(0, rounds, most):
        yield min(most, rounds - start)
