"""Scores: what each figure carries, intervals and p-values, chance, and counts of what is missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.evaluate import bootstrap
from epalm.evaluate.bootstrap import intervals, p_value, paired_interval, resampled_sums
from epalm.evaluate.chance import chance_predictions
from epalm.evaluate.measures import ORDERS, Measure, bleu_of_sums, mean_measure
from epalm.evaluate.scoring import digest_samples, score_predictions
from epalm.samples import Modality, Prediction, Sample, Task


def _qa(
    name: str, prompt: str, answer: str, question_type: str | None = None, answer_type: str | None = None
) -> Sample:
    raw = (answer,) * 7 + ("other",) * 3
    return Sample(
        name,
        Modality.IMAGE,
        name,
        Task.QA,
        "test",
        prompt=prompt,
        answers={answer: 1.0},
        raw_answers=raw,
        question_type=question_type,
        answer_type=answer_type,
    )


def test_chance_is_the_commonest_training_answer_to_the_question() -> None:
    training = [_qa(str(n), "color?", "red" if n else "blue") for n in range(3)] + [_qa("x", "size?", "big")]
    captions = [Sample("c", Modality.IMAGE, "c", Task.CAPTION, "train", references=("b", "a", "a"))]
    asked = [_qa("1", "color?", ""), _qa("2", "size?", ""), _qa("3", "unheard?", ""), *captions]
    assert [one.text for one in chance_predictions([*training, *captions], asked)] == ["red", "big", "red", "a"]
    assert chance_predictions([], asked)[0].text == ""


def test_any_answer_to_what_has_no_right_one_is_wrong() -> None:
    lost = Sample("2", Modality.IMAGE, "2", Task.QA, "test", prompt="q", unanswerable=True)
    scores = score_predictions([_qa("1", "q", "red"), lost], [Prediction("1", "red"), Prediction("2", "")]).tasks
    assert scores["qa"]["expected"] == scores["qa"]["scored"] == 2
    assert scores["qa"]["metrics"] == {"exact match": 0.5, "VQA accuracy": 0.5, "VQA soft accuracy": 0.5}


def test_missing_predictions_are_counted_and_unanswered_questions_not_expected() -> None:
    samples = [
        _qa("1", "q", "red"),
        _qa("2", "q", "blue"),
        Sample("3", Modality.IMAGE, "3", Task.QA, "test", prompt="q"),
        Sample("4", Modality.IMAGE, "4", Task.QA, "test", prompt="q", unanswerable=True),
        Sample("5", Modality.IMAGE, "5", Task.QA, "test", prompt="q", answers={"x": 1.0}),
    ]
    scores = score_predictions(samples, [Prediction("1", "red"), Prediction("3", "x"), Prediction("4", "x")])
    qa = scores.tasks["qa"]
    assert (qa["expected"], qa["scored"], qa["missing"]) == (4, 2, 2)
    assert qa["metrics"]["exact match"] == 0.5
    figure = qa["figures"]["VQA accuracy"]
    assert (figure["expected"], figure["scored"], figure["missing"], figure["value"]) == (3, 2, 1, 0.5)
    assert "caption" not in scores.tasks
    assert [row["id"] for row in scores.per_sample] == ["1", "4"]
    nothing = score_predictions(samples, [])
    assert nothing.tasks["qa"]["missing"] == 4 and nothing.tasks["qa"]["metrics"] == {}


def test_every_figure_carries_interval_backend_and_counts() -> None:
    samples = [_qa(str(n), "q", "red") for n in range(50)]
    said = [Prediction(str(n), "red" if n % 2 else "blue") for n in range(50)]
    tasks = score_predictions(samples, said, said).tasks
    assert tasks["qa"]["metrics"].keys() == tasks["qa"]["figures"].keys() == tasks["qa"]["chance"].keys()
    for name, figure in tasks["qa"]["figures"].items():
        assert figure["value"] == tasks["qa"]["metrics"][name] == 0.5
        assert 0.3 < figure["low"] < 0.5 < figure["high"] < 0.7
        assert figure["backend"].startswith("epalm ") and figure["resampled"] == "per-sample scores"
        assert (figure["expected"], figure["scored"], figure["missing"]) == (50, 50, 0)
    assert tasks == score_predictions(samples, said, said).tasks  # the same seed, the same figures


def test_accuracy_by_type_is_that_of_the_type_alone() -> None:
    kinds = ("yes/no", "number", "other")
    samples = [_qa(str(n), "q", "red", answer_type=kinds[n % 3], question_type=f"what {n % 7}") for n in range(60)] + [
        _qa("x", "q", "red")
    ]
    said = [Prediction(s.id, "red" if n % 5 else "blue") for n, s in enumerate(samples)]
    qa = score_predictions(samples, said).tasks["qa"]
    assert list(qa["by_answer_type"]) == sorted(kinds) and len(qa["by_question_type"]) == 7
    for kind, part in qa["by_answer_type"].items():
        only = [sample for sample in samples if sample.answer_type == kind]
        assert part["value"] == score_predictions(only, said).tasks["qa"]["metrics"]["VQA accuracy"]
        assert (
            part["scored"] == 20 and part["metric"] == "VQA accuracy" and part["low"] <= part["value"] <= part["high"]
        )


def test_metrics_are_those_asked_for() -> None:
    samples = [_qa("1", "q", "red"), Sample("c", Modality.IMAGE, "c", Task.CAPTION, "test", references=("a",))]
    said = [Prediction("1", "red"), Prediction("c", "a")]
    tasks = score_predictions(samples, said, metrics=("exact match",)).tasks
    assert list(tasks["qa"]["metrics"]) == ["exact match"] and tasks["caption"]["metrics"] == {}


def test_the_digest_is_of_what_is_asked_in_any_order() -> None:
    samples = [_qa("1", "q", "red"), _qa("2", "q", "blue")]
    assert digest_samples(samples) == digest_samples(samples[::-1])
    others = [
        samples[:1],
        [*samples, _qa("3", "q", "x")],
        [samples[0], _qa("2", "q", "green")],
        [samples[0], _qa("2", "r", "blue")],
    ]
    assert len({digest_samples(some) for some in (samples, *others)}) == 5


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(200):
        low, high = intervals({"m": mean_measure(rng.normal(0.3, 1, 60), "")})["m"]
        inside += low <= 0.3 <= high
    assert 180 <= inside <= 199
    low, high = intervals({"m": mean_measure(rng.normal(0.3, 1, 400), "")})["m"]
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


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
    assert bleu_of_sums(order)(sums[None].astype(float), len(rows))[0] == pytest.approx(
        product ** (1 / order) * penalty, abs=1e-12
    )


def test_p_values_are_even_where_nothing_differs_and_small_where_much_does() -> None:
    rng = np.random.default_rng(2)
    values = []
    for _ in range(60):
        first, second = (mean_measure(rng.normal(0, 1, 40), "") for _ in range(2))
        values.append(p_value(first, second))
    assert 0.3 < np.mean(values) < 0.7 and min(values) > 1e-3
    base = rng.normal(0, 1, 100)
    worse, better = mean_measure(base, ""), mean_measure(base + rng.normal(0.5, 0.2, 100), "")
    assert p_value(worse, better) == p_value(better, worse) < 1e-3
    low, high = paired_interval(worse, better)
    assert 0.4 < low < 0.5 < high < 0.6  # far narrower than either one's own: the samples are the same
    assert p_value(worse, worse) == 1.0 and paired_interval(worse, worse) == (0.0, 0.0)


def test_a_sign_test_by_hand() -> None:
    first, second = mean_measure([0, 0, 0, 0, 1], ""), mean_measure([1, 1, 1, 1, 1], "")
    assert p_value(first, second) == pytest.approx(2 / 2**4, abs=0.01)


def test_corpus_scores_are_compared_by_their_counts() -> None:
    rng = np.random.default_rng(3)
    guesses = np.array([8, 7, 6, 5])

    def side(right: float) -> Measure:
        matches = rng.binomial(guesses, right, (80, 4))
        columns = np.concatenate([matches, np.tile(guesses, (80, 1)), np.full((80, 2), 8)], axis=1).astype(float)
        make = bleu_of_sums(4)
        return Measure(float(make(columns.sum(axis=0)[None], 80)[0]), columns, make, "")

    one, two, much = side(0.5), side(0.5), side(0.7)
    assert p_value(one, two) > 0.01 > p_value(one, much)
    low, high = paired_interval(one, much)
    assert 0 < low < much.value - one.value < high


def test_a_metric_that_there_is_not_is_told() -> None:
    from epalm.cli.score_report import chosen_metrics

    assert chosen_metrics("BLEU, vqa-accuracy") == ("VQA accuracy", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
    for words in ("bleu,rogue", ","):
        with pytest.raises(UsageError, match="--metrics"):
            chosen_metrics(words)
