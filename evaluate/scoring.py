"""Predictions → scores: per task, with how many samples were expected, scored and missing."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from epalm.evaluate.answers import exact_match, soft_accuracy, vqa_accuracy
from epalm.evaluate.captions import METRICS, caption_scores, tokenise
from epalm.samples import Prediction, Sample, Task

_CHANCE_METRICS = ("CIDEr",)


def score_predictions(
    samples: Sequence[Sample], predictions: Sequence[Prediction], chance: Sequence[Prediction] = ()
) -> dict[str, Any]:
    """Task → {"expected", "scored", "missing", "metrics", "chance"} as JSON values; metrics are fractions.

    Samples without answers or references are not expected, but unanswerable ones are. `chance` are guesses to set
    beside the predictions.
    """
    said = {one.id: one.text for one in predictions}
    guessed = {one.id: one.text for one in chance}
    scores: dict[str, Any] = {}
    for task, judge in ((Task.QA, _judge_answers), (Task.CAPTION, _judge_captions)):
        expected = [s for s in samples if s.task is task and (s.answers or s.references or s.unanswerable)]
        scored = [sample for sample in expected if sample.id in said]
        if not expected:
            continue
        scores[task.value] = {
            "expected": len(expected),
            "scored": len(scored),
            "missing": len(expected) - len(scored),
            **(judge(scored, said, guessed) if scored else {"metrics": {}, "chance": {}}),
        }
    return scores


def backends() -> dict[str, str]:
    """What computed the scores, with versions."""
    return {"epalm": version("epalm"), "pycocoevalcap": version("pycocoevalcap")}


def _judge_answers(samples: Sequence[Sample], said: Mapping[str, str], guessed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "metrics": _accuracies(samples, said),
        "chance": _accuracies(samples, guessed) if guessed else {},
    }


def _accuracies(samples: Sequence[Sample], said: Mapping[str, str]) -> dict[str, float]:
    exact = [exact_match(said[sample.id], sample.answers) for sample in samples]
    accuracies = {"exact match": sum(exact) / len(exact)}
    if all(sample.raw_answers for sample in samples):
        right = [vqa_accuracy(said[sample.id], sample.raw_answers) for sample in samples]
        accuracies["VQA accuracy"] = sum(right) / len(right)
    soft = [soft_accuracy(said[sample.id], sample.answers) for sample in samples]
    accuracies["VQA soft accuracy"] = sum(soft) / len(soft)
    return accuracies


def _judge_captions(samples: Sequence[Sample], said: Mapping[str, str], guessed: Mapping[str, str]) -> dict[str, Any]:
    sentences: dict[str, Sequence[str]] = {f"r{s.id}": s.references for s in samples}
    sentences |= {f"p{s.id}": [said[s.id]] for s in samples}
    sentences |= {f"c{s.id}": [guessed[s.id]] for s in samples} if guessed else {}
    tokens = tokenise(sentences)
    references, ours, chance = ({key[1:]: value for key, value in tokens.items() if key[0] == kind} for kind in "rpc")
    return {
        "metrics": caption_scores(ours, references, METRICS),
        "chance": caption_scores(chance, references, _CHANCE_METRICS) if guessed else {},
    }
