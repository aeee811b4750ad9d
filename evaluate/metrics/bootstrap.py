"""How sure a score is: bootstrap intervals over media, and paired tests of differences. Knows numbers only.

Samples about one medium are not independent, so that what is drawn, or swapped, is all samples of a medium. A metric
aggregates sums of its statistics: a resample is a vector of weights over media, and all resamples are one matrix
product. N: samples; G: media; M: statistics; R: resamples.

Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (whole clusters are drawn);
Efron, Better Bootstrap Confidence Intervals, JASA 1987 (bias-corrected and accelerated, BCa); Hesterberg, What Teachers
Should Know about the Bootstrap, The American Statistician 2015 (wider levels, for intervals of few are too narrow);
Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989 (approximate randomisation).
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from epalm.evaluate.metrics.metric import Aggregate, Measured
from epalm.figures import media_in_words

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


def resampling(media: int | None = None) -> str:
    """How intervals over so many media are computed, in words, or that there are none."""
    if media is not None and media < FEWEST:
        return f"no interval: {media_in_words(media)}"
    over = "media" if media is None else media_in_words(media)
    return f"BCa bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}"


def figures(
    measured: Mapping[str, Measured], media: Sequence[str], *, over_samples: bool = True
) -> dict[str, dict[str, Any]]:
    """The figure of each metric (see `epalm.figures`): all are of the same samples, about these media.

    "over_samples" is the interval that drawing samples would give, where its width is another by more than a tenth; it
    takes long where samples are many.
    """
    over_media = intervals(measured, media)
    beside = intervals(measured) if over_samples and FEWEST <= len(set(media)) < len(media) else {}
    return {
        name: {"value": one.value, **_interval_figure(over_media[name], beside.get(name), media), "scored": len(media)}
        for name, one in measured.items()
    }


def difference(first: Measured, other: Measured, media: Sequence[str]) -> dict[str, Any]:
    """The figure of `other - first`, both of the same samples in the same order, with its p-value."""
    over_samples = paired_interval(first, other) if len(set(media)) < len(media) else None
    return {
        "first": first.value,
        "other": other.value,
        "difference": other.value - first.value,
        **_interval_figure(paired_interval(first, other, media), over_samples, media),
        "p": p_value(first, other, media),
    }


def _interval_figure(over_media: Interval | None, over_samples: Interval | None, of: Sequence[str]) -> dict[str, Any]:
    media = len(set(of))
    if over_media is None:
        why = f"no interval: {media:,} media alike" if media >= FEWEST else resampling(media)
        return {"low": None, "high": None, "interval": why, "media": media}
    low, high = over_media
    figure = {"low": low, "high": high, "interval": f"over {media:,} media", "media": media}
    width = over_samples[1] - over_samples[0] if over_samples else 0.0
    differs = over_samples is not None and abs(high - low - width) > width / 10
    return figure | ({"over_samples": list(over_samples or ())} if differs else {})


def intervals(measured: Mapping[str, Measured], media: Sequence[str] | None = None) -> dict[str, Interval | None]:
    """The 95 % interval of each metric; all are of the same N samples, and resampled alike.

    `media` says which medium each sample is of; None: each of its own. There is no interval, but None, where the media
    are fewer than six, or all alike.
    """
    columns = [one.statistics for one in measured.values()]
    parts = _sums_by_medium(np.concatenate([*columns, np.ones((len(columns[0]), 1))], axis=1), media)
    if len(parts) < FEWEST:
        return dict.fromkeys(measured)
    drawn, start = resampled_sums(parts), 0
    by_name = {}
    for name, one in measured.items():
        own = [*range(start, start := start + one.statistics.shape[1]), -1]  # last: how many samples
        by_name[name] = _interval(one.aggregate, parts[:, own], drawn[:, own])
    return by_name


def paired_interval(first: Measured, second: Measured, media: Sequence[str] | None = None) -> Interval | None:
    """The 95 % interval of `second - first`, both of the same samples in the same order, resampled together."""
    width = first.statistics.shape[1]

    def change(sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
        return second.aggregate(sums[:, width:], counts) - first.aggregate(sums[:, :width], counts)

    if np.array_equal(first.statistics, second.statistics):
        return (0.0, 0.0) if len(set(media or range(len(first.statistics)))) >= FEWEST else None
    both = Measured(np.concatenate([first.statistics, second.statistics], axis=1), change)
    return intervals({"": both}, media)[""]


def p_value(first: Measured, second: Measured, media: Sequence[str] | None = None) -> float:
    """How often a difference as large results when each medium's two results are swapped at random.

    At least 1 / (shuffles + 1).
    """
    count = len(first.statistics)
    totals = first.statistics.sum(axis=0), second.statistics.sum(axis=0)
    observed = second.value - first.value
    change = _sums_by_medium(second.statistics - first.statistics, media)
    change = change[change.any(axis=1)]  # swapping equal results changes nothing
    if not len(change):
        return 1.0
    rng, as_large = np.random.default_rng(SEED), 0
    for rows in _chunks(SHUFFLES, len(change)):
        moved = rng.integers(0, 2, (rows, len(change)), dtype=np.int8).astype(np.float64) @ change
        shuffled = second.aggregate(totals[1] - moved, count) - first.aggregate(totals[0] + moved, count)
        as_large += int((np.abs(shuffled) >= abs(observed) - _EQUAL).sum())
    return (as_large + 1) / (SHUFFLES + 1)


def resampled_sums(parts: np.ndarray) -> np.ndarray:
    """Sums (R, M) of the parts (G, M) over R draws of G media with replacement."""
    rng, count = np.random.default_rng(SEED), len(parts)
    sums = []
    for rows in _chunks(RESAMPLES, count):
        places = rng.integers(0, count, (rows, count), dtype=np.int32) + np.arange(rows)[:, None] * count
        times = np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)  # each medium was drawn
        sums.append(times.astype(np.float64) @ parts)
    return np.concatenate(sums)


def _sums_by_medium(statistics: np.ndarray, media: Sequence[str] | None) -> np.ndarray:
    """(N, M) → (G, M), the media in the order of their first samples."""
    if media is None:
        return statistics
    order: dict[str, int] = {}
    places = [order.setdefault(one, len(order)) for one in media]
    sums = np.zeros((len(order), statistics.shape[1]))
    np.add.at(sums, places, statistics)
    return sums


def _interval(aggregate: Aggregate, parts: np.ndarray, drawn: np.ndarray) -> Interval | None:
    """BCa: the resamples' quantiles at levels that are shifted by their bias and by the skewness of what media add.

    Parts (G, M + 1) and resamples (R, M + 1) have their counts of samples last.
    """
    count, whole = len(parts), parts.sum(axis=0)

    def value(sums: np.ndarray) -> np.ndarray:
        return aggregate(sums[:, :-1], sums[:, -1])

    without = value(whole - parts)  # each medium in turn
    spread = without.mean() - without
    if np.abs(spread).max() <= _EQUAL:
        return None
    values, observed = value(drawn), value(whole[None])[0]
    below = (values < observed - _EQUAL).mean() + 0.5 * (np.abs(values - observed) <= _EQUAL).mean()
    bias = _NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    skew = float((spread**3).sum() / (6 * (spread**2).sum() ** 1.5))
    levels = [_NORMAL.cdf(bias + (bias + one) / (1 - skew * (bias + one))) for one in (-_reach(count), _reach(count))]
    low, high = np.quantile(values, levels)
    return float(low), float(high)


def standard_error(figure: Mapping[str, Any]) -> float | None:
    """The standard error that a figure's interval comes to: half its width by the errors that it reaches out."""
    low, high = figure["low"], figure["high"]
    return None if low is None else float(high - low) / 2 / _reach(figure["media"])


def _reach(count: int) -> float:
    """How many standard errors the interval over so many media reaches to each side, as resampling shows them."""
    return float((count / (count - 1)) ** 0.5 * _student(1 - (1 - LEVEL) / 2, count - 1))


def _student(level: float, freedom: int) -> float:
    """The quantile of Student's t, to a thousandth for five degrees of freedom and more.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = _NORMAL.inv_cdf(level)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / freedom + second / freedom**2 + third / freedom**3 + fourth / freedom**4


def _chunks(rounds: int, count: int) -> Iterator[int]:
    most = max(1, _AT_ONCE // count)
    for start in range(0, rounds, most):
        yield min(most, rounds - start)
