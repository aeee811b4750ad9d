"""Scores: VQA's normalisation and accuracy, captions through pycocoevalcap, chance, counts of what is missing."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.evaluate import java
from epalm.evaluate.answers import exact_match, normalise, soft_accuracy, vqa_accuracy
from epalm.evaluate.captions import METRICS, caption_scores, tokenise
from epalm.evaluate.chance import chance_predictions
from epalm.evaluate.scoring import score_predictions
from epalm.samples import Modality, Prediction, Sample, Task


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("The red cat.", "red cat"),
        ("An  apple\n", "apple"),
        ("Two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("yes, it is", "yes it is"),
        ("black/white", "black white"),
        ("what?", "what"),
        ("blue-ish", "blue ish"),
        ("t-shirt - red", "tshirt red"),
        ("", ""),
    ],
)
def test_answers_are_normalised_as_published(written: str, compared: str) -> None:
    assert normalise(written) == compared


@given(st.lists(st.sampled_from(["red", "Red.", "blue", "a dog", "two", "2"]), min_size=10, max_size=10), st.data())
def test_vqa_accuracy_is_the_leave_one_out_mean(raw: list[str], data: st.DataObject) -> None:
    said = data.draw(st.sampled_from(["red", "blue", "dog", "2", "green"]))
    total = 0.0
    for left_out in range(10):
        others = [normalise(answer) for place, answer in enumerate(raw) if place != left_out]
        total += min(1.0, others.count(normalise(said)) / 3)
    assert vqa_accuracy(said, raw) == pytest.approx(total / 10)


def test_soft_and_exact_accuracy() -> None:
    answers = {"red": 1.0, "dark red": 0.3}
    assert [soft_accuracy(said, answers) for said in ("Red", "the dark red", "blue")] == [1.0, 0.3, 0.0]
    assert [exact_match(said, answers) for said in ("Red", "the dark red", "blue")] == [1.0, 0.0, 0.0]


REFERENCES = {"1": ["a red circle at the left", "there is a red circle"], "2": ["a dog runs", "a dog is running"]}


def test_caption_scores_are_those_of_the_library() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    tokens = tokenise(REFERENCES)
    said = tokenise({"1": ["A red circle, at the right!"], "2": ["a dog"]})
    assert said["1"] == ["a red circle at the right"]
    scores = caption_scores(said, tokens)
    assert set(scores) == set(METRICS)
    assert scores["CIDEr"] == pytest.approx(Cider().compute_score(tokens, said)[0])
    assert scores["BLEU-4"] == pytest.approx(Bleu(4).compute_score(tokens, said)[0][3])
    assert all(0 < scores[name] < 1 for name in ("METEOR", "ROUGE-L", "BLEU-1"))


def test_a_perfect_caption_beats_an_empty_one() -> None:
    tokens = tokenise(REFERENCES)
    perfect = caption_scores({key: some[:1] for key, some in tokens.items()}, tokens)
    empty = caption_scores(tokenise({"1": [""], "2": ["\n"]}), tokens)
    assert perfect["BLEU-1"] == pytest.approx(1)
    assert all(empty[name] < perfect[name] for name in METRICS)


def test_without_java_the_packaged_one_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("uname", "dirname"):  # what a Java launcher may need of the system
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("java") is None
    with java.java_on_path() as path:
        assert shutil.which("java") == path
    assert shutil.which("java") is None
    said = tokenise({"1": ["a red circle"], "2": ["a dog runs"]})
    assert caption_scores(said, tokenise(REFERENCES))["METEOR"] > 0


def _qa(name: str, prompt: str, answer: str, split: str = "test") -> Sample:
    return Sample(name, Modality.IMAGE, name, Task.QA, split, prompt=prompt, answers={answer: 1.0})


def test_chance_is_the_commonest_training_answer_to_the_question() -> None:
    training = [_qa(str(n), "color?", "red" if n else "blue") for n in range(3)] + [_qa("x", "size?", "big")]
    captions = [Sample("c", Modality.IMAGE, "c", Task.CAPTION, "train", references=("b", "a", "a"))]
    asked = [_qa("1", "color?", ""), _qa("2", "size?", ""), _qa("3", "unheard?", ""), *captions]
    assert [one.text for one in chance_predictions([*training, *captions], asked)] == ["red", "big", "red", "a"]
    assert chance_predictions([], asked)[0].text == ""


def test_any_answer_to_what_has_no_right_one_is_wrong() -> None:
    lost = Sample("2", Modality.IMAGE, "2", Task.QA, "test", prompt="q", unanswerable=True)
    scores = score_predictions([_qa("1", "q", "red"), lost], [Prediction("1", "red"), Prediction("2", "")])
    assert scores["qa"]["expected"] == scores["qa"]["scored"] == 2
    assert scores["qa"]["metrics"] == {"exact match": 0.5, "VQA soft accuracy": 0.5}


def test_missing_predictions_are_counted_and_unanswered_questions_not_expected() -> None:
    samples = [
        _qa("1", "q", "red"),
        _qa("2", "q", "blue"),
        Sample("3", Modality.IMAGE, "3", Task.QA, "test", prompt="q"),
    ]
    scores = score_predictions(samples, [Prediction("1", "red"), Prediction("3", "x")])
    assert scores["qa"]["expected"] == 2
    assert (scores["qa"]["scored"], scores["qa"]["missing"]) == (1, 1)
    assert scores["qa"]["metrics"]["exact match"] == 1.0
    assert "caption" not in scores
