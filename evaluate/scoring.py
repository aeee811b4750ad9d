"""Predictions → scores: per task, each figure with its interval, its backend and how many samples it is of."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from epalm.evaluate.answers import exact_match, soft_accuracy, vqa_accuracy
from epalm.evaluate.bootstrap import INTERVAL, intervals
from epalm.evaluate.captions import caption_measures
from epalm.evaluate.java import MetricError
from epalm.evaluate.measures import (
    ANSWER_METRICS,
    BLEU,
    CAPTION_METRICS,
    COUNTS,
    EPALM,
    METRICS,
    Measure,
    Skipped,
    mean_measure,
)
from epalm.evaluate.tokenizer import tokenise
from epalm.fingerprint import canonical_json
from epalm.samples import Prediction, Sample, Task

_CHANCE_METRICS = ("CIDEr",)
_JUDGES: Mapping[str, Callable[[str, Sample], float]] = {
    "exact match": lambda said, sample: exact_match(said, sample.answers),
    "VQA accuracy": lambda said, sample: vqa_accuracy(said, sample.raw_answers),
    "VQA soft accuracy": lambda said, sample: soft_accuracy(said, sample.answers),
}


@dataclass(frozen=True)
class Scores:
    """`tasks` as `scores.json` has them, and what each sample got."""

    tasks: dict[str, Any]
    per_sample: list[dict[str, Any]]


@dataclass(frozen=True)
class _Judged:
    """Some measures, each with the samples that it is of, in the order of its columns."""

    measures: dict[str, tuple[Sequence[Sample], Measure]]
    chance: dict[str, float]
    skipped: Sequence[Skipped] = ()


def score_predictions(
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
    chance: Sequence[Prediction] = (),
    *,
    metrics: Sequence[str] = METRICS,
) -> Scores:
    """Score what was said about the samples; `chance` are guesses to set beside the predictions.

    A task has "expected", "scored" and "missing" samples, "metrics" and "chance" (fractions), "figures" (the same
    metrics with interval, backend and their own counts) and "skipped". Samples without answers or references are not
    expected, but for unanswerable ones.
    """
    said = {one.id: one.text for one in predictions}
    guessed = {one.id: one.text for one in chance}
    tasks: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    for task, judge in ((Task.QA, _judge_answers), (Task.CAPTION, _judge_captions)):
        expected = [sample for sample in samples if sample.task is task and is_expected(sample)]
        scored = [sample for sample in expected if sample.id in said]
        if not expected:
            continue
        judged = judge(scored, said, guessed, metrics) if scored else _Judged({}, {})
        tasks[task.value] = _told(judged, expected, scored)
        rows |= {sample.id: _row(sample, said[sample.id]) for sample in scored}
        for name, (of, measure) in judged.measures.items():
            _note(rows, name, of, measure)
    return Scores(tasks, list(rows.values()))


def is_expected(sample: Sample) -> bool:
    """Whether there is anything to score a prediction against."""
    return bool(sample.references if sample.task is Task.CAPTION else sample.answers or sample.unanswerable)


def digest_samples(samples: Sequence[Sample]) -> str:
    """SHA-256 (hex) of what is asked and expected, in any order: scores of equal digests can be compared."""
    digests = sorted(sha256(canonical_json(_expectation(sample))).digest() for sample in samples if is_expected(sample))
    return sha256(b"".join(digests)).hexdigest()


def _expectation(sample: Sample) -> list[Any]:
    texts = [list(sample.raw_answers), list(sample.references)]
    return [sample.id, sample.media, sample.prompt, dict(sample.answers), *texts, sample.unanswerable]


def _judge_answers(
    samples: Sequence[Sample], said: Mapping[str, str], guessed: Mapping[str, str], metrics: Sequence[str]
) -> _Judged:
    measures, chance = {}, {}
    for name in ANSWER_METRICS:
        of = _by_people(samples) if name == "VQA accuracy" else samples
        if name not in metrics or not of:
            continue
        measures[name] = of, mean_measure([_JUDGES[name](said[sample.id], sample) for sample in of], EPALM)
        if guessed:
            chance[name] = float(np.mean([_JUDGES[name](guessed[sample.id], sample) for sample in of]))
    return _Judged(measures, chance)


def _by_people(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those that people answered one by one, and those without a right answer, of a data set that has the former."""
    if not any(sample.raw_answers for sample in samples):
        return ()
    return [sample for sample in samples if sample.raw_answers or sample.unanswerable]


def _judge_captions(
    samples: Sequence[Sample], said: Mapping[str, str], guessed: Mapping[str, str], metrics: Sequence[str]
) -> _Judged:
    wanted = [name for name in CAPTION_METRICS if name in metrics]
    if not wanted:
        return _Judged({}, {})
    sentences: dict[str, Sequence[str]] = {f"r{s.id}": s.references for s in samples}
    sentences |= {f"p{s.id}": [said[s.id]] for s in samples}
    sentences |= {f"c{s.id}": [guessed[s.id]] for s in samples} if guessed else {}
    try:
        tokens = tokenise(sentences)
    except MetricError as fault:
        return _Judged({}, {}, [Skipped(name, fault.message, fault.hint) for name in wanted])
    references, ours, guesses = ({key[1:]: value for key, value in tokens.items() if key[0] == kind} for kind in "rpc")
    found, skipped = caption_measures(ours, references, wanted)
    by_chance = [name for name in _CHANCE_METRICS if name in wanted]
    chance, _ = caption_measures(guesses, references, by_chance) if guesses else ({}, [])
    measures = {name: (samples, measure) for name, measure in found.items()}
    return _Judged(measures, {name: measure.value for name, measure in chance.items()}, skipped)


def _told(judged: _Judged, expected: Sequence[Sample], scored: Sequence[Sample]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "expected": len(expected),
        "scored": len(scored),
        "missing": len(expected) - len(scored),
        "metrics": {name: measure.value for name, (_, measure) in judged.measures.items()},
        "chance": judged.chance,
        "figures": {},
        "interval": INTERVAL,
        "skipped": [asdict(one) for one in judged.skipped],
    }
    for names, of in _alike(judged.measures):
        measures = {name: judged.measures[name][1] for name in names}
        asked = len(_by_people(expected) if "VQA accuracy" in names else expected)
        for name, (low, high) in intervals(measures).items():
            counts = {"expected": asked, "scored": len(of), "missing": asked - len(of)}
            figure = {"value": measures[name].value, "low": low, "high": high, **counts}
            told["figures"][name] = {
                **figure,
                "backend": measures[name].backend,
                "resampled": measures[name].resampled,
            }
    told["figures"] = {name: told["figures"][name] for name in told["metrics"]}
    return told | dict(_by_type(judged))


def _alike(measures: Mapping[str, tuple[Sequence[Sample], Measure]]) -> Iterator[tuple[list[str], Sequence[Sample]]]:
    """Names of measures that are of the same samples."""
    groups: dict[int, list[str]] = defaultdict(list)
    for name, (of, _) in measures.items():
        groups[len(of)].append(name)
    for names in groups.values():
        yield names, measures[names[0]][0]


def _by_type(judged: _Judged) -> Iterator[tuple[str, dict[str, Any]]]:
    """The benchmark's accuracy by answer type and by question type, where the data have them."""
    name = next((name for name in ("VQA accuracy", "exact match") if name in judged.measures), None)
    if name is None:
        return
    of, measure = judged.measures[name]
    for kind in ("answer_type", "question_type"):
        places: dict[str, list[int]] = defaultdict(list)
        for place, sample in enumerate(of):
            if given := getattr(sample, kind):
                places[given].append(place)
        if places:
            yield f"by_{kind}", {given: _part(name, measure, places[given]) for given in sorted(places)}


def _part(name: str, whole: Measure, places: Sequence[int]) -> dict[str, Any]:
    part = mean_measure(whole.columns[places, 0], whole.backend)
    low, high = intervals({name: part})[name]
    return {"metric": name, "value": part.value, "low": low, "high": high, "scored": len(places)}


def _row(sample: Sample, text: str) -> dict[str, Any]:
    asked = {"id": sample.id, "task": sample.task.value, "media": sample.media, "prompt": sample.prompt}
    if sample.task is Task.CAPTION:
        wanted: dict[str, Any] = {"references": list(sample.references)}
    else:
        types = {"question_type": sample.question_type, "answer_type": sample.answer_type}
        wanted = {"answers": dict(sample.answers)} | {key: value for key, value in types.items() if value}
    return {**asked, **wanted, "text": text, "scores": {}}


def _note(rows: dict[str, dict[str, Any]], name: str, of: Sequence[Sample], measure: Measure) -> None:
    """Each sample's part in a measure: its score, but for BLEU, which is of no single caption; and its counts."""
    parts: dict[str, np.ndarray] = {} if name in BLEU else {name: measure.per_sample}
    if name in COUNTS and COUNTS[name] not in rows[of[0].id]["scores"]:
        whole = measure.columns.astype(np.int64)
        parts[COUNTS[name]] = whole if (whole == measure.columns).all() else measure.columns
    for part, values in parts.items():
        for sample, value in zip(of, values.tolist(), strict=True):
            rows[sample.id]["scores"][part] = value
