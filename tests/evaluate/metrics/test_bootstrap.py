"""Intervals and p-values on simulated scores: how often they hold what they say, over samples and over media."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.evaluate.metrics import bootstrap
from epalm.evaluate.metrics.bleu import ORDERS, Bleu
from epalm.evaluate.metrics.bootstrap import intervals, p_value, paired_interval, resampled_sums
from epalm.evaluate.metrics.metric import Measured
from tests.measured import mean_of


def _interval(values: np.ndarray) -> tuple[float, float]:
    got = intervals({"m": mean_of(values)})["m"]
    assert got is not None
    return got


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    measures = {str(number): mean_of(rng.normal(0.3, 1, 60)) for number in range(200)}
    inside = sum(one is not None and one[0] <= 0.3 <= one[1] for one in intervals(measures).values())
    assert 180 <= inside <= 199
    low, high = _interval(rng.normal(0.3, 1, 400))
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def _drawn_answers(media: int, right: float, correlation: float, seed: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """A thousand test sets of as many media with 1 to 19 questions each, a hundred at a time: media, and what is right.

    Whether a medium's questions are answered right has this correlation within the medium (beta-binomial).
    """
    rng = np.random.default_rng(seed)
    shape = (1 - correlation) / correlation
    for _ in range(10):
        of = np.repeat(np.arange(media), rng.integers(1, 20, media))
        chances = rng.beta(right * shape, (1 - right) * shape, (100, media))
        yield [str(one) for one in of], (rng.random((100, len(of))) < chances[:, of]).astype(float)


@pytest.mark.parametrize(
    ("media", "right", "correlation"),
    [(100, 0.6, 0.3), (400, 0.7, 0.5), pytest.param(100, 0.9, 0.1, marks=pytest.mark.slow)],
)
def test_intervals_hold_what_they_say_though_samples_of_a_medium_are_alike(
    media: int, right: float, correlation: float
) -> None:
    inside: list[bool] = []
    over_samples: list[bool] = []
    for of, answers in _drawn_answers(media, right, correlation, seed=media):
        measures = {str(number): mean_of(row) for number, row in enumerate(answers)}
        inside += [one is not None and one[0] <= right <= one[1] for one in intervals(measures, of).values()]
        if not over_samples:
            over_samples = [one is not None and one[0] <= right <= one[1] for one in intervals(measures).values()]
    assert len(inside) == 1000 and 0.93 <= np.mean(inside) <= 0.97
    assert np.mean(over_samples) < 0.9


def test_whole_media_are_drawn_and_corpus_measures_made_of_their_sums() -> None:
    """Against drawing samples one medium after another, by the same weights, in plain loops."""
    rng = np.random.default_rng(4)
    of = [str(one) for one in rng.integers(0, 12, 90)]
    names = list(dict.fromkeys(of))
    columns = rng.integers(1, 9, (90, 10)).astype(float)
    make = Bleu(4).aggregate
    measures = {
        "BLEU-4": Measured(columns, make),
        "mean": mean_of(columns[:, 0]),
    }
    draws = np.random.default_rng(bootstrap.SEED).integers(0, len(names), (bootstrap.RESAMPLES, len(names)), np.int32)
    values: dict[str, list[float]] = {"BLEU-4": [], "mean": []}
    for drawn in draws:
        rows = np.concatenate([columns[[one == names[place] for one in of]] for place in drawn])
        values["BLEU-4"].append(float(make(rows.sum(axis=0)[None], len(rows))[0]))
        values["mean"].append(float(rows[:, 0].mean()))
    for name, got in intervals(measures, of).items():
        assert got is not None
        low, high = np.quantile(values[name], [0.02, 0.98])
        spread = high - low
        assert got[0] == pytest.approx(low, abs=0.15 * spread) and got[1] == pytest.approx(high, abs=0.15 * spread)
        assert min(abs(np.array(values[name]) - got[0])) < spread / 100  # it is a quantile of these very values


@pytest.mark.parametrize("count", [1, 5, 3000])
def test_resamples_are_the_same_however_many_are_drawn_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(0).integers(0, 9, (count, 3)).astype(float)
    whole = resampled_sums(columns)
    assert whole.shape == (bootstrap.RESAMPLES, 3)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 1)
    assert resampled_sums(columns) == pytest.approx(whole)
    assert whole.mean(axis=0) == pytest.approx(columns.sum(axis=0), rel=0.1, abs=1)


counts = st.lists(st.integers(0, 9), min_size=10, max_size=10)


@given(st.lists(counts, min_size=1, max_size=4), st.integers(1, ORDERS))
def test_bleu_of_sums_is_its_formula(rows: list[list[int]], order: int) -> None:
    sums = np.array(rows).sum(axis=0)
    product = 1.0
    for n in range(order):
        product *= (sums[n] + 1e-15) / (sums[ORDERS + n] + 1e-9)
    ratio = (sums[8] + 1e-15) / (sums[9] + 1e-9)
    penalty = 1.0 if ratio >= 1 else np.exp(1 - 1 / ratio)
    assert Bleu(order).aggregate(sums[None].astype(float), len(rows))[0] == pytest.approx(
        product ** (1 / order) * penalty, abs=1e-12
    )


def test_p_values_are_even_where_nothing_differs_and_small_where_much_does() -> None:
    rng = np.random.default_rng(2)
    values = []
    for _ in range(60):
        first, second = (mean_of(rng.normal(0, 1, 40)) for _ in range(2))
        values.append(p_value(first, second))
    assert 0.3 < np.mean(values) < 0.7 and min(values) > 1e-3
    base = rng.normal(0, 1, 100)
    worse, better = mean_of(base), mean_of(base + rng.normal(0.5, 0.2, 100))
    assert p_value(worse, better) == p_value(better, worse) < 1e-3
    low, high = paired_interval(worse, better) or (0.0, 0.0)
    assert 0.4 < low < 0.5 < high < 0.6  # far narrower than either one's own: the samples are the same
    assert p_value(worse, worse) == 1.0 and paired_interval(worse, worse) == (0.0, 0.0)


def test_a_sign_test_by_hand() -> None:
    first, second = mean_of([0, 0, 0, 0, 1]), mean_of([1, 1, 1, 1, 1])
    assert p_value(first, second) == pytest.approx(2 / 2**4, abs=0.01)


def test_corpus_scores_are_compared_by_their_counts() -> None:
    rng = np.random.default_rng(3)
    guesses = np.array([8, 7, 6, 5])

    def side(right: float) -> Measured:
        matches = rng.binomial(guesses, right, (80, 4))
        columns = np.concatenate([matches, np.tile(guesses, (80, 1)), np.full((80, 2), 8)], axis=1).astype(float)
        make = Bleu(4).aggregate
        return Measured(columns, make)

    one, two, much = side(0.5), side(0.5), side(0.7)
    assert p_value(one, two) > 0.01 > p_value(one, much)
    low, high = paired_interval(one, much) or (0.0, 0.0)
    assert 0 < low < much.value - one.value < high
