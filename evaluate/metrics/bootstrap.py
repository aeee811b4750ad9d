"""How sure a score is: intervals over media and seeds, paired tests, detectable differences. Knows numbers only.

Samples about one medium are not independent, so that what is drawn, or swapped, is all samples of a medium. A metric
aggregates sums of its statistics: a resample is a vector of weights over media, and all resamples are one matrix
product. N: samples; G: media; M: statistics; R: resamples; S: seeds.

Runs of several seeds on the same media are a crossed design, and its mean varies by the seeds, the media, and both
together. Media are many, and drawn. Seeds are few: of three, a bootstrap has ten different resamples, and would be far
too narrow. So what they add to the variance is estimated (`_Spread`), and held to Student's t.

Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (whole clusters are drawn);
Efron, Better Bootstrap Confidence Intervals, JASA 1987 (bias-corrected and accelerated, BCa); Hesterberg, What Teachers
Should Know about the Bootstrap, The American Statistician 2015 (wider levels, for intervals of few are too narrow);
Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989 (approximate randomisation); Searle, Casella and
McCulloch, Variance Components, 1992, chapter 4 (crossed designs); McCullagh, Resampling and Exchangeable Arrays,
Bernoulli 2000 (drawing both levels is never right); Zou and Donner, Statistics in Medicine 2008 (adding intervals).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import exp, lgamma, pi, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from epalm.evaluate.metrics.metric import Measured, change

RESAMPLES = 2000
SHUFFLES = 10_000
LEVEL = 0.95
POWER = 0.8  # share of test sets in which a detectable difference is detected
SEED = 0
FEWEST = 6  # media: of fewer, no interval holds what it says
FEWEST_SEEDS = 3  # of two, none does either
TEST = f"paired approximate randomisation over media, two-sided, {SHUFFLES} shuffles, seed {SEED}"
_AT_ONCE = 1 << 20  # draws held in memory: what keeps it flat whatever N is
_EQUAL = 1e-12  # what differs by less differs by rounding
_NORMAL = NormalDist()

Interval = tuple[float, float]


def resampling(media: int | None = None) -> str:
    """How intervals over so many media are computed, in words, or that there are none."""
    over = "media" if media is None else f"{media:,} {'medium' if media == 1 else 'media'}"
    if media is not None and media < FEWEST:
        return f"no interval: {over}"
    return f"BCa bootstrap over {over}, {RESAMPLES} resamples, seed {SEED}"


def figures(measured: Mapping[str, Measured], media: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figure of each metric (see `epalm.figures`): all are of the same samples, about these media.

    Of several seeds a figure has each one's value, "by_seed".
    """
    over_media = intervals(measured, media)
    return {
        name: {
            "value": one.value,
            **_interval_figure(over_media[name], media, len(one.by_seed)),
            "scored": len(media),
            **({"by_seed": one.by_seed.tolist()} if len(one.by_seed) > 1 else {}),
        }
        for name, one in measured.items()
    }


def difference(first: Measured, other: Measured, media: Sequence[str]) -> dict[str, Any]:
    """The figure of `other - first`, both of the same samples in the same order, with its p-value.

    "detectable" is the smallest difference that so many media could have shown (`detectable`).
    """
    return {
        "first": first.value,
        "other": other.value,
        "difference": other.value - first.value,
        **_interval_figure(paired_interval(first, other, media), media),
        "p": p_value(first, other, media),
        "detectable": detectable(first, other, media),
    }


def _interval_figure(over_media: Interval | None, of: Sequence[str], seeds: int = 1) -> dict[str, Any]:
    media = len(set(of))
    if over_media is None:
        why = f"no interval: {media:,} media alike" if media >= FEWEST else resampling(media)
        return {"low": None, "high": None, "interval": why, "media": media}
    low, high = over_media
    over = f"over {media:,} media" + (f" and {seeds} seeds" if seeds >= FEWEST_SEEDS else "")
    return {"low": low, "high": high, "interval": over, "media": media}


def intervals(measured: Mapping[str, Measured], media: Sequence[str] | None = None) -> dict[str, Interval | None]:
    """The 95 % interval of each metric; all are of the same N samples, and resampled alike.

    `media` says which medium each sample is of; None: each of its own. There is no interval, but None, where the media
    are fewer than six, or all alike.
    """
    parts = _sums_by_medium(np.concatenate([one.statistics for one in measured.values()], axis=1), media)
    if len(parts) < FEWEST:
        return dict.fromkeys(measured)
    drawn, start = resampled_sums(parts), 0
    by_name = {}
    for name, one in measured.items():
        own = [*range(start, start := start + one.statistics.shape[1]), -1]  # last: how many samples
        by_name[name] = _interval(one, parts[:, own], drawn[:, own])
    return by_name


def paired_interval(first: Measured, second: Measured, media: Sequence[str] | None = None) -> Interval | None:
    """The 95 % interval of `second - first`, both of the same samples in the same order, resampled together."""
    if np.array_equal(first.statistics, second.statistics):
        return (0.0, 0.0) if len(set(media or range(len(first.statistics)))) >= FEWEST else None
    return intervals({"": change(first, second)}, media)[""]


def detectable(first: Measured, second: Measured, media: Sequence[str] | None = None) -> float | None:
    """The smallest difference that a comparison of so many media (and seeds) could have shown.

    Were the true difference as large, of either sign, and results as variable as these are, then 80 of 100 such test
    sets would show one: a two-sided test at 5 % would reject that there is none (for one seed `p_value`'s, for several
    that the interval holds 0). In the metric's unit: (t at 0.975 + t at 0.8) × the standard error of `second - first`;
    and one sample's share more where a sample is right or wrong, as the shuffled differences then have steps of two,
    and ties count. What is smaller may be there and not be seen. None: media are fewer than six, or none differs.

    The standard error is an estimate: with G media its relative error is about 1 / √(2 G), with three seeds, where
    they vary more than media do, half.
    """
    both = change(first, second)
    parts = _sums_by_medium(both.statistics, media)
    spread = _Spread.of(both, parts) if len(parts) >= FEWEST else None
    if spread is None:
        return None
    steps = both.statistics.shape[1] == 2 and not (both.statistics % 1).any()
    tie = 1 / len(both.statistics) if steps else 0.0
    return (spread.reach + _student(POWER, spread.freedom)) * sqrt(spread.variance) + tie


def p_value(first: Measured, second: Measured, media: Sequence[str] | None = None) -> float:
    """How often a difference as large results when each medium's two results are swapped at random.

    At least 1 / (shuffles + 1).
    """
    count = len(first.statistics)
    totals = first.statistics.sum(axis=0), second.statistics.sum(axis=0)
    observed = second.value - first.value
    differences = _sums_by_medium(second.statistics - first.statistics, media)[:, :-1]
    differences = differences[differences.any(axis=1)]  # swapping equal results changes nothing
    if not len(differences):
        return 1.0
    rng, as_large = np.random.default_rng(SEED), 0
    for rows in _chunks(SHUFFLES, len(differences)):
        moved = rng.integers(0, 2, (rows, len(differences)), dtype=np.int8).astype(np.float64) @ differences
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
    """(N, M) → (G, M + 1), the number of samples last; media in the order of their first samples; None: one each."""
    counted = np.column_stack([statistics, np.ones(len(statistics))])
    if media is None:
        return counted
    order: dict[str, int] = {}
    places = [order.setdefault(one, len(order)) for one in media]
    sums = np.zeros((len(order), counted.shape[1]))
    np.add.at(sums, places, counted)
    return sums


def _by_seed(measured: Measured, sums: np.ndarray) -> np.ndarray:
    """Values (R, S) of sums (R, M + 1), which have their counts of samples last."""
    return measured.aggregate(sums[:, :-1], sums[:, -1]).reshape(len(sums), -1)


class _Spread(NamedTuple):
    """How a value's mean over S seeds and G media varies: the variance that its seeds and the one that its media add.

    `reach`: how many standard errors the 95 % interval reaches to each side, by that many degrees of `freedom`.

    What media and seeds do together is in the variance of the seeds' values and in that of the media's means; it is
    taken out of the latter, which knows it better. For one seed, or too few of them, it is the media's alone.
    """

    seeds: float
    media: float
    freedom: float
    reach: float
    added: np.ndarray  # (G,) what each medium adds to the value, by leaving it out: the jackknife

    @property
    def variance(self) -> float:
        """Of the mean."""
        return self.seeds + self.media

    @classmethod
    def of(cls, measured: Measured, parts: np.ndarray) -> "_Spread | None":
        """Of parts (G, M + 1); None where all media are alike."""
        count, level = len(parts), 1 - (1 - LEVEL) / 2
        whole = parts.sum(axis=0)
        without = _by_seed(measured, whole - parts)
        adds = (count - 1) * (without.mean(axis=0) - without)  # (G, S)
        means, number = adds.mean(axis=1), adds.shape[1]
        if np.abs(means).max() <= _EQUAL * (count - 1):
            return None
        media = float((means**2).sum()) / (count * (count - 1))
        if number < FEWEST_SEEDS:
            return cls(0.0, media, count - 1, _student(level, count - 1), means)
        together = float(((adds - means[:, None]) ** 2).sum()) / (number * (number - 1) * count * (count - 1))
        seeds = float(_by_seed(measured, whole[None])[0].var(ddof=1)) / number
        media = max(media / 10, media - together)
        freedom = (seeds + media) ** 2 / (seeds**2 / (number - 1) + media**2 / (count - 1))
        # Midway between Welch's and Cochran's solution, of which simulations show the one too narrow (92 of 100 hold
        # the truth with three seeds) and the other too wide (97), the mean of both neither.
        weighted = seeds * _student(level, number - 1) + media * _student(level, count - 1)
        return cls(seeds, media, freedom, (_student(level, freedom) + weighted / (seeds + media)) / 2, means)


def _interval(measured: Measured, parts: np.ndarray, drawn: np.ndarray) -> Interval | None:
    """BCa over media, and what seeds add: squares of lengths are added, so that the media's skewness stays.

    BCa: the resamples' quantiles at levels that are shifted by their bias and by the skewness of what media add. Parts
    (G, M + 1) and resamples (R, M + 1) have their counts of samples last.
    """
    spread = _Spread.of(measured, parts)
    if spread is None:
        return None
    count, added = len(parts), spread.added
    values, observed = _by_seed(measured, drawn).mean(axis=1), measured.value
    below = (values < observed - _EQUAL).mean() + 0.5 * (np.abs(values - observed) <= _EQUAL).mean()
    bias = _NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    skew = float((added**3).sum() / (6 * (added**2).sum() ** 1.5))
    levels = [_NORMAL.cdf(bias + (bias + one) / (1 - skew * (bias + one))) for one in (-_reach(count), _reach(count))]
    low, high = np.quantile(values, levels)
    if spread.seeds:
        alone = _reach(count) * sqrt((added**2).sum()) / count  # half the media's interval, were it even
        sides = (
            spread.reach * sqrt(spread.seeds + spread.media * (side / alone) ** 2)
            for side in (observed - low, high - observed)
        )
        low, high = (observed + sign * side for sign, side in zip((-1, 1), sides, strict=True))
    return float(low), float(high)


def standard_error(figure: Mapping[str, Any]) -> float | None:
    """The standard error that a figure's interval comes to: half its width by the errors that it reaches out."""
    low, high = figure["low"], figure["high"]
    return None if low is None else float(high - low) / 2 / _reach(figure["media"])


def _reach(count: int) -> float:
    """How many standard errors the interval over so many media reaches to each side, as resampling shows them."""
    return float((count / (count - 1)) ** 0.5 * _student(1 - (1 - LEVEL) / 2, count - 1))


@lru_cache(maxsize=1024)
def _student(level: float, freedom: float) -> float:
    """The quantile of Student's t: its density, integrated. For two degrees of freedom and more, levels of 0.5–0.98."""
    places = np.linspace(0, 20, 20_001)
    scale = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(freedom * pi)
    density = scale * np.exp(-(freedom + 1) / 2 * np.log1p(places**2 / freedom))
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * places[1])])
    return float(np.interp(level - 0.5, area, places))


def _chunks(rounds: int, count: int) -> Iterator[int]:
    most = max(1, _AT_ONCE // count)
    for start in range(0, rounds, most):
        yield min(most, rounds - start)
