"""Predictions → scores: per task, each figure with its interval, its backend and how many samples it is of."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from epalm.evaluate.metrics.answer_scores import VQA, Judged, by_people, judge_answers
from epalm.evaluate.metrics.bootstrap import count_media, resampling
from epalm.evaluate.metrics.captions import caption_measures
from epalm.evaluate.metrics.figure import figures
from epalm.evaluate.metrics.java import MetricError
from epalm.evaluate.metrics.measures import BLEU, CAPTION_METRICS, COUNTS, METRICS, Measure, Skipped, mean_measure
from epalm.evaluate.metrics.tokenizer import tokenise
from epalm.fingerprint import canonical_json
from epalm.samples import Prediction, Sample, Task

_CHANCE_METRICS = ("CIDEr",)


@dataclass(frozen=True)
class Scores:
    """`tasks` as `scores.json` has them, and what each sample got."""

    tasks: dict[str, Any]
    per_sample: list[dict[str, Any]]


@dataclass(frozen=True)
class _Asked:
    """The samples of a task: those there are, those expected of a limited scoring, and those with a prediction."""

    there: Sequence[Sample]
    expected: Sequence[Sample]
    scored: Sequence[Sample]
    digests: Mapping[str, str]

    def by_people(self) -> "_Asked":
        return _Asked(by_people(self.there), by_people(self.expected), by_people(self.scored), self.digests)

    def media(self, samples: Sequence[Sample]) -> list[str]:
        """What each sample is about: the digest of its medium, where it is not known its name."""
        return [self.digests.get(sample.media, sample.media) for sample in samples]

    def counts(self) -> dict[str, int]:
        return _counts(len(self.there), len(self.expected), len(self.scored))

    def counts_by(self, kind: str) -> dict[str, dict[str, int]]:
        """The counts of the samples of each type."""
        there, expected, scored = (
            Counter(getattr(sample, kind) for sample in samples) for samples in (self.there, self.expected, self.scored)
        )
        return {given: _counts(there[given], expected[given], scored[given]) for given in there}


def _counts(there: int, expected: int, scored: int) -> dict[str, int]:
    return {"of": there, "expected": expected, "scored": scored, "missing": expected - scored}


def score_predictions(
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
    chance: Sequence[Prediction] = (),
    *,
    metrics: Sequence[str] = METRICS,
    split: Sequence[Sample] | None = None,
    digests: Mapping[str, str] | None = None,
) -> Scores:
    """Score what was said about the samples; `chance` are guesses to set beside the predictions.

    `split` are all samples that there are, where `samples` are some of them. `digests` are those of media by name,
    where they are known: media of equal digests are one, and their samples are not independent.

    A task has "expected", "scored" and "missing" samples, those that there are, "of", "metrics" and "chance"
    (fractions), "figures" (the same metrics with interval, backend and their own counts), "skipped" and "notes".
    Samples without answers or references are not expected, but for unanswerable ones.
    """
    digests = digests or {}
    said = {one.id: one.text for one in predictions}
    guessed = {one.id: one.text for one in chance}
    tasks: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    for task, judge in ((Task.QA, judge_answers), (Task.CAPTION, _judge_captions)):
        expected = _of_task(samples, task)
        scored = [sample for sample in expected if sample.id in said]
        if not expected:
            continue
        judged = judge(scored, said, guessed, metrics) if scored else Judged({}, {})
        there = expected if split is None else _of_task(split, task)
        tasks[task.value] = _told(judged, _Asked(there, expected, scored, digests))
        rows |= {sample.id: _row(sample, said[sample.id], digests.get(sample.media)) for sample in scored}
        for name, (of, measure) in judged.measures.items():
            _note(rows, name, of, measure)
    return Scores(tasks, list(rows.values()))


def _of_task(samples: Sequence[Sample], task: Task) -> list[Sample]:
    return [sample for sample in samples if sample.task is task and is_expected(sample)]


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


def _judge_captions(
    samples: Sequence[Sample], said: Mapping[str, str], guessed: Mapping[str, str], metrics: Sequence[str]
) -> Judged:
    wanted = [name for name in CAPTION_METRICS if name in metrics]
    if not wanted:
        return Judged({}, {})
    sentences: dict[str, Sequence[str]] = {f"r{s.id}": s.references for s in samples}
    sentences |= {f"p{s.id}": [said[s.id]] for s in samples}
    sentences |= {f"c{s.id}": [guessed[s.id]] for s in samples} if guessed else {}
    try:
        tokens = tokenise(sentences)
    except MetricError as fault:
        return Judged({}, {}, [Skipped(name, fault.message, fault.hint) for name in wanted])
    references, ours, guesses = ({key[1:]: value for key, value in tokens.items() if key[0] == kind} for kind in "rpc")
    found, skipped = caption_measures(ours, references, wanted)
    by_chance = [name for name in _CHANCE_METRICS if name in wanted]
    chance, _ = caption_measures(guesses, references, by_chance) if guesses else ({}, [])
    measures = {name: (samples, measure) for name, measure in found.items()}
    return Judged(measures, {name: measure.value for name, measure in chance.items()}, skipped)


def _told(judged: Judged, asked: _Asked) -> dict[str, Any]:
    made: dict[str, Any] = {}
    by_people = asked.by_people().counts()
    for names, of in _alike(judged.measures):
        measures = {name: judged.measures[name][1] for name in names}
        for name, figure in figures(measures, asked.media(of)).items():
            counts = by_people if name.startswith(VQA) else asked.counts()
            origin = {"backend": measures[name].backend, "resampled": measures[name].resampled}
            made[name] = {**figure, **counts, **origin}
    return {
        **asked.counts(),
        "metrics": {name: measure.value for name, (_, measure) in judged.measures.items()},
        "chance": judged.chance,
        "figures": {name: made[name] for name in judged.measures},
        "interval": resampling(count_media(asked.media(asked.scored))),
        "skipped": [asdict(one) for one in judged.skipped],
        "notes": list(judged.notes),
        **dict(_by_type(judged, asked)),
    }


def _alike(measures: Mapping[str, tuple[Sequence[Sample], Measure]]) -> Iterator[tuple[list[str], Sequence[Sample]]]:
    """Names of measures that are of the same samples: all, or some of them, and then the same."""
    groups: dict[int, list[str]] = defaultdict(list)
    for name, (of, _) in measures.items():
        groups[len(of)].append(name)
    for names in groups.values():
        yield names, measures[names[0]][0]


def _by_type(judged: Judged, asked: _Asked) -> Iterator[tuple[str, dict[str, Any]]]:
    """The benchmark's accuracy by answer type and by question type, where the data have them."""
    name = next((name for name in (VQA, "exact match") if name in judged.measures), None)
    if name is None:
        return
    of, measure = judged.measures[name]
    asked = asked.by_people() if name == VQA else asked
    for kind in ("answer_type", "question_type"):
        places: dict[str, list[int]] = defaultdict(list)
        for place, sample in enumerate(of):
            if given := getattr(sample, kind):
                places[given].append(place)
        if places:
            parts = {
                given: _part(measure, [of[place] for place in here], here, asked) for given, here in places.items()
            }
            counts = asked.counts_by(kind)
            yield f"by_{kind}", {given: {"metric": name, **parts[given], **counts[given]} for given in sorted(parts)}


def _part(whole: Measure, of: Sequence[Sample], places: Sequence[int], asked: _Asked) -> dict[str, Any]:
    return figures({"": mean_measure(whole.columns[places, 0], whole.backend)}, asked.media(of), beside=False)[""]


def _row(sample: Sample, text: str, digest: str | None) -> dict[str, Any]:
    asked = {"id": sample.id, "task": sample.task.value, "media": sample.media, "prompt": sample.prompt}
    asked |= {"digest": digest} if digest else {}
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
