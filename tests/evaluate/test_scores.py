"""Scores: what each figure carries, intervals and p-values, chance, and counts of what is missing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from epalm.evaluate.metrics.bootstrap import p_value, paired_interval
from epalm.evaluate.scoring import chance_predictions, digest_samples, score_predictions
from epalm.figures import samples_in_words
from epalm.samples import Modality, Prediction, Sample, Task
from tests.measured import mean_of


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
    assert chance_predictions([], asked) == []


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
    predicted = [Prediction(str(n), "red" if n % 2 else "blue") for n in range(50)]
    tasks = score_predictions(samples, predicted, predicted).tasks
    assert tasks["qa"]["metrics"].keys() == tasks["qa"]["figures"].keys() == tasks["qa"]["chance"].keys()
    for name, figure in tasks["qa"]["figures"].items():
        assert figure["value"] == tasks["qa"]["metrics"][name] == 0.5
        assert 0.3 < figure["low"] < 0.5 < figure["high"] < 0.7
        assert figure["backend"].startswith("epalm ") and figure["resampled"] == "per-sample scores"
        assert (figure["expected"], figure["scored"], figure["missing"]) == (50, 50, 0)
    assert tasks == score_predictions(samples, predicted, predicted).tasks  # the same seed, the same figures


def test_accuracy_by_type_is_that_of_the_type_alone() -> None:
    kinds = ("yes/no", "number", "other")
    samples = [_qa(str(n), "q", "red", answer_type=kinds[n % 3], question_type=f"what {n % 7}") for n in range(60)] + [
        _qa("x", "q", "red")
    ]
    predicted = [Prediction(s.id, "red" if n % 5 else "blue") for n, s in enumerate(samples)]
    qa = score_predictions(samples, predicted).tasks["qa"]
    assert list(qa["by_answer_type"]) == sorted(kinds) and len(qa["by_question_type"]) == 7
    for kind, part in qa["by_answer_type"].items():
        only = [sample for sample in samples if sample.answer_type == kind]
        assert part["value"] == score_predictions(only, predicted).tasks["qa"]["metrics"]["VQA accuracy"]
        assert (
            part["scored"] == 20 and part["metric"] == "VQA accuracy" and part["low"] <= part["value"] <= part["high"]
        )


def test_metrics_are_those_asked_for() -> None:
    samples = [_qa("1", "q", "red"), Sample("c", Modality.IMAGE, "c", Task.CAPTION, "test", references=("a",))]
    predicted = [Prediction("1", "red"), Prediction("c", "a")]
    tasks = score_predictions(samples, predicted, metrics=("exact match",)).tasks
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


@pytest.mark.parametrize("media", [1, 2, 3, 5])
def test_of_few_media_there_is_no_interval(media: int) -> None:
    samples = [replace(_qa(str(n), "q", "red"), media=str(n % media)) for n in range(60)]
    predicted = [Prediction(str(n), "red" if n % 7 else "blue") for n in range(60)]
    qa = score_predictions(samples, predicted).tasks["qa"]
    for figure in qa["figures"].values():
        assert figure["low"] is None and figure["high"] is None
        assert figure["interval"] == f"no interval: {media} {'medium' if media == 1 else 'media'}" == qa["interval"]
    alike = score_predictions(
        [_qa(str(n), "q", "red") for n in range(60)], [Prediction(str(n), "red") for n in range(60)]
    )
    assert alike.tasks["qa"]["figures"]["exact match"]["interval"] == "no interval: 60 media alike"
    worse, better = (mean_of(np.arange(60.0) % 5 + more) for more in (0, np.arange(60) % 7))
    assert paired_interval(worse, better, [one.media for one in samples]) is None
    assert p_value(worse, better, [one.media for one in samples]) == pytest.approx(2 / 2**media, abs=0.02)


def test_the_interval_is_over_media_whose_samples_are_alike() -> None:
    samples = [replace(_qa(str(n), "q", "red"), media=str(n // 5)) for n in range(200)]
    alike = [Prediction(str(n), "red" if n // 5 % 3 else "blue") for n in range(200)]
    figure = score_predictions(samples, alike).tasks["qa"]["figures"]["exact match"]
    own = score_predictions([_qa(str(n), "q", "red") for n in range(200)], alike).tasks["qa"]["figures"]["exact match"]
    assert (figure["interval"], figure["media"], own["media"]) == ("over 40 media", 40, 200)
    assert (figure["high"] - figure["low"]) / (own["high"] - own["low"]) == pytest.approx(5**0.5, rel=0.15)


def test_equal_media_under_two_names_are_one() -> None:
    samples = [replace(_qa(str(n), "q", "red"), media=f"{n}.jpg") for n in range(40)]
    predicted = [Prediction(str(n), "red" if n % 3 else "blue") for n in range(40)]
    digests = {f"{n}.jpg": f"{n // 2:064x}" for n in range(38)}
    scores = score_predictions(samples, predicted, digests=digests)
    assert scores.tasks["qa"]["figures"]["exact match"]["media"] == 19 + 2
    assert [row.get("digest") for row in scores.per_sample[-3:]] == [digests["37.jpg"], None, None]


def test_a_limited_scoring_says_of_how_many() -> None:
    samples = [_qa(str(n), "q", "red", answer_type="color") for n in range(50)]
    predicted = [Prediction(str(n), "red") for n in range(1, 50)]
    qa = score_predictions(samples[:10], predicted, split=samples).tasks["qa"]
    counts = {"of": 50, "expected": 10, "scored": 9, "missing": 1}
    for one in (qa, *qa["figures"].values(), qa["by_answer_type"]["color"]):
        assert {key: one[key] for key in counts} == counts
    assert samples_in_words(qa) == "9/50, limited, 1 missing"
    whole = score_predictions(samples, predicted).tasks["qa"]
    assert samples_in_words(whole) == "49/50, 1 missing"


def test_people_are_too_few_for_vqa_accuracy() -> None:
    def asked(*people: int) -> list[Sample]:
        return [replace(_qa(str(n), "q", "red"), raw_answers=("red",) * count) for n, count in enumerate(people)]

    predicted = [Prediction(str(n), "red") for n in range(4)]
    for people in ((1, 1), (2, 2), (1, 2, 2)):
        qa = score_predictions(asked(*people), predicted).tasks["qa"]
        assert "VQA accuracy" not in qa["metrics"] and qa["metrics"]["exact match"] == 1
        (skipped,) = qa["skipped"]
        assert skipped["metric"] == "VQA accuracy" and "three people" in skipped["reason"]
    qa = score_predictions(asked(10, 10, 1, 2), predicted).tasks["qa"]
    figure = qa["figures"]["VQA accuracy"]
    assert (figure["value"], figure["scored"], figure["of"]) == (1, 2, 2)
    assert any("2 of 4 questions are left out" in note for note in qa["notes"])
    qa = score_predictions(asked(3, 3), predicted).tasks["qa"]
    assert qa["metrics"]["VQA accuracy"] == pytest.approx(2 / 3) and any("66.67" in note for note in qa["notes"])


def test_other_forms_of_vqa_accuracy_are_given_where_they_give_another_figure() -> None:
    def scored(predicted: str, *raw_answers: str) -> dict[str, Any]:
        sample = replace(_qa("1", "q", "red"), raw_answers=raw_answers)
        scored_qa: dict[str, Any] = score_predictions([sample], [Prediction("1", predicted)]).tasks["qa"]
        return scored_qa

    assert set(scored("yes", *["yes"] * 10)["metrics"]) == {"exact match", "VQA accuracy", "VQA soft accuracy"}
    agreed = scored("Yes", *["yes"] * 10)
    forms = {name: agreed["metrics"][f"VQA accuracy{name}"] for name in ("", " (lmms-eval)", " (LAVIS)")}
    assert forms == {"": 0, " (lmms-eval)": 1, " (LAVIS)": 1}
    assert any("official" in note and "LAVIS" in note for note in agreed["notes"])
    differing = scored("the cat", *["the cat"] * 9, "dog")["metrics"]
    assert differing["VQA accuracy"] == 1 and differing["VQA accuracy (LAVIS)"] == 0
    assert "VQA accuracy (lmms-eval)" not in differing
