"""Intervals and p-values on simulated scores: how often they hold what they say, over samples and over media."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.evaluate.metrics import bootstrap
from epalm.evaluate.metrics.bleu import ORDERS, Bleu
from epalm.evaluate.metrics.bootstrap import detectable, figures, intervals, p_value, paired_interval, resampled_sums
from epalm.evaluate.metrics.metric import Measured, change, over_seeds
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


RIGHT = 0.6


def _seeds_answers(
    seeds: int, vary: float, *, tests: int, media: int = 120, more: float = 0.0, seed: int = 0
) -> tuple[list[str], np.ndarray]:
    """What runs of several seeds answer right: media of the samples, and 0 or 1 of (tests, seeds, samples).

    A medium is as hard for all runs, each seed is better or worse by a normal deviation `vary`, and half of the
    questions are as hard for all runs too. `more` is added to what is right: the truth is RIGHT + more.
    """
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(media), rng.integers(1, 8, media))
    easy = RIGHT + more + rng.uniform(-0.2, 0.2, (tests, 1, media)) + rng.normal(0, vary, (tests, seeds, 1))
    hard = np.where(rng.random((tests, 1, len(of))) < 0.5, *(rng.random((tests, n, len(of))) for n in (1, seeds)))
    return [str(one) for one in of], (hard < easy[:, :, of]).astype(float)


def _mean(runs: np.ndarray) -> Measured:
    return over_seeds([mean_of(one) for one in runs])


@pytest.mark.parametrize(
    ("seeds", "vary", "media"),
    [
        (3, 0.03, 120),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in [(3, 0.0, 120), (3, 0.15, 120), (3, 0.03, 400)]),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in [(3, 0.03, 25), (5, 0.03, 120), (10, 0.05, 120)]),
    ],
)
def test_intervals_over_seeds_and_media_hold_what_they_say(seeds: int, vary: float, media: int) -> None:
    of, answers = _seeds_answers(seeds, vary, tests=1000, media=media, seed=media + seeds)
    inside = []
    for some in np.split(answers, 10):
        made = intervals({str(number): _mean(runs) for number, runs in enumerate(some)}, of)
        inside += [one is not None and one[0] <= RIGHT <= one[1] for one in made.values()]
    assert 0.93 <= np.mean(inside) <= 0.97
    if vary > 0.1:  # where they would leave out the seeds
        bare = {str(number): mean_of(runs.mean(axis=0)) for number, runs in enumerate(answers[:200])}
        assert np.mean([one is not None and one[0] <= RIGHT <= one[1] for one in intervals(bare, of).values()]) < 0.6


def _over_seeds(
    more: float, vary: float, seeds: int = 3, tests: int = 1000
) -> tuple[list[tuple[float, float]], list[float]]:
    """Intervals of differences between runs of other seeds where the truth is `more`, and what was detectable."""
    of, first = _seeds_answers(seeds, vary, tests=tests, seed=5)
    other = np.roll(_seeds_answers(seeds, vary, tests=tests, more=more, seed=5)[1], 1, axis=0)
    pairs = [(_mean(one), _mean(two)) for one, two in zip(first, other, strict=True)]
    made: list[tuple[float, float]] = []
    for start in range(0, tests, 100):
        changes = {str(number): change(*pair) for number, pair in enumerate(pairs[start : start + 100])}
        made += [one for one in intervals(changes, of).values() if one]
    return made, [detectable(*pair, of) or 0.0 for pair in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("vary", [0.0, 0.05])
def test_intervals_of_differences_over_seeds_hold_what_they_say(vary: float) -> None:
    made, _ = _over_seeds(0.05, vary)
    assert len(made) == 1000 and 0.93 <= np.mean([low <= 0.05 <= high for low, high in made]) <= 0.97


def test_the_mean_over_seeds_by_hand() -> None:
    rng = np.random.default_rng(0)
    runs = (rng.random((3, 90)) < np.array([[0.5], [0.7], [0.9]])).astype(float)
    of = [str(number // 3) for number in range(90)]
    figure = figures({"m": _mean(runs)}, of)["m"]
    assert figure["value"] == pytest.approx(runs.mean()) and figure["by_seed"] == pytest.approx(runs.mean(axis=1))
    assert figure["interval"] == "over 30 media and 3 seeds"
    # Seeds that vary by far more than media do: Student's t of two degrees of freedom, on three values.
    half = 4.303 * runs.mean(axis=1).std(ddof=1) / 3**0.5
    assert (figure["high"] - figure["low"]) / 2 == pytest.approx(half, rel=0.1)
    # Three times the same run is one run; of two seeds no interval holds, and it is over media alone.
    alone = figures({"m": mean_of(runs[0])}, of)["m"]
    for same in (runs[[0, 0, 0]], runs[[0, 0]]):
        again = figures({"m": _mean(same)}, of)["m"]
        assert [again["low"], again["high"]] == pytest.approx([alone["low"], alone["high"]], abs=1e-9)
    assert again["interval"] == "over 30 media"


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    [(0.975, 2, 4.30265), (0.975, 5, 2.57058), (0.8, 2, 1.06066), (0.975, 1e6, 1.95996)],
)
def test_quantiles_of_student_are_those_of_tables(level: float, freedom: float, quantile: float) -> None:
    assert bootstrap._student(level, freedom) == pytest.approx(quantile, abs=2e-5)


def _rejected(more: float, media: int) -> tuple[float, float]:
    """How often a test finds a true difference, and what was said to be detectable, on the average."""
    of, answers = _seeds_answers(2, 0.0, tests=1000, media=media, seed=2)
    better = np.random.default_rng(3).random((len(answers), len(of))) < more / (1 - RIGHT)
    pairs = [(mean_of(one), mean_of(np.maximum(two, new))) for (one, two), new in zip(answers, better, strict=True)]
    stated = [detectable(*pair, of) or 0.0 for pair in pairs]
    return float(np.mean([p_value(*pair, of) < 0.05 for pair in pairs])), float(np.mean(stated))


@pytest.mark.slow
@pytest.mark.parametrize("media", [30, 120])
def test_a_detectable_difference_is_found_in_80_of_100_test_sets(media: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right to a tenth: a tenth less is found less often, a tenth more is found more often."""
    monkeypatch.setattr(bootstrap, "SHUFFLES", 999)
    size = _rejected(0.1, media)[1]
    less, size_there = _rejected(0.9 * size, media)
    assert size_there == pytest.approx(size, rel=0.05)  # it hardly depends on what the difference is
    assert less < 0.8 < _rejected(1.1 * size, media)[0]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_so_is_one_over_seeds(seeds: int) -> None:
    """The interval leaves 0 out. Few seeds say little of how they vary: the squares are right on the average."""
    size = float(np.mean(np.square(_over_seeds(0.1, 0.03, seeds)[1])) ** 0.5)
    less, more = (np.mean([low > 0 for low, _ in _over_seeds(part * size, 0.03, seeds)[0]]) for part in (0.9, 1.1))
    assert less < 0.8 < more


def test_nothing_is_detectable_where_nothing_differs_or_media_are_few() -> None:
    one, other = mean_of([0, 1] * 20), mean_of([1, 1] * 20)
    assert detectable(one, one) is None and detectable(one, other, ["a", "b"] * 20) is None
    # Of 40 media, half of which differ by 1: (2.0227 + 0.8511) standard errors of 0.5 / √39, and half a step of 2 / 40.
    assert detectable(one, other) == pytest.approx(2.8738 * 0.5 / 39**0.5 + 1 / 40, rel=1e-3)
    half, whole = (mean_of(np.array(values) / 2) for values in ([0, 1] * 20, [1, 1] * 20))
    assert detectable(half, whole) == pytest.approx(2.8738 * 0.25 / 39**0.5, rel=1e-3)
