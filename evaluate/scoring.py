"""Predictions → scores: per task, each figure with its interval, its backend and how many samples it is of."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from epalm.errors import MetricError
from epalm.evaluate.metrics.bootstrap import figures, resampling
from epalm.evaluate.metrics.metric import Inputs, Measured, Metric, Skipped, measure
from epalm.evaluate.metrics.registry import choose_metrics, judge, metrics_for
from epalm.fingerprint import canonical_json
from epalm.samples import Prediction, Sample, Task

_ROUNDING = 1e-12


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

    def of(self, metric: Metric) -> "_Asked":
        """Those that the metric scores. Raises MetricError: none of them, and why."""
        scored, expected, there = map(metric.select, (self.scored, self.expected, self.there))
        return _Asked(there, expected, scored, self.digests)

    def media(self) -> list[str]:
        """What each scored sample is about: the digest of its medium, where it is not known its name."""
        return [self.digests.get(sample.media, sample.media) for sample in self.scored]

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
    metrics: Sequence[str] | None = None,
    split: Sequence[Sample] | None = None,
    digests: Mapping[str, str] | None = None,
) -> Scores:
    """Score the predictions for the samples; `chance` are guesses to set beside the predictions.

    `metrics`: all, without names. `split` are all samples that there are, where `samples` are some of them. `digests`
    are those of media by name, where they are known: media of equal digests are one, and their samples are not
    independent.

    A task has "expected", "scored" and "missing" samples, those that there are, "of", "metrics" and "chance"
    (fractions), "figures" (the same metrics with interval, backend and their own counts), "skipped" and "notes".
    Samples without answers or references are not expected, but for unanswerable ones.
    """
    texts, guesses = ({one.id: one.text for one in some} for some in (predictions, chance))
    tasks: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    for task in Task:
        expected = _of_task(samples, task)
        if not expected:
            continue
        scored = [sample for sample in expected if sample.id in texts]
        asked = _Asked(expected if split is None else _of_task(split, task), expected, scored, digests or {})
        wanted = metrics_for(task, choose_metrics() if metrics is None else metrics)
        tasks[task.value], per_sample = _score_task(asked, texts, guesses, wanted if scored else [])
        lines += per_sample
    return Scores(tasks, lines)


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


def _score_task(
    asked: _Asked, texts: Mapping[str, str], guesses: Mapping[str, str], metrics: Sequence[Metric]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `scores.json` has of the task, and the line of each sample."""
    measured: dict[str, tuple[_Asked, Measured]] = {}
    made: dict[str, dict[str, Any]] = {}
    chance: dict[str, float] = {}
    skipped: list[Skipped] = []
    for group in _of_the_same_samples(metrics):
        try:
            part = asked.of(group[0])
        except MetricError as error:
            skipped += [Skipped(one.name, error.message, error.hint) for one in group if not one.other_form_of]
            continue
        if not part.scored:
            continue
        predicted, guessed = ([some[one.id] for one in part.scored if some] for some in (texts, guesses))
        inputs = Inputs(part.scored, predicted, guessed)
        found, without = measure(inputs, group)
        skipped += without
        found = {one.name: found[one.name] for one in group if one.name in found and _differs(one, found)}
        if guesses:
            by_chance, _ = measure(inputs.guessed(), [one for one in group if one.chance and one.name in found])
            chance |= {name: one.value for name, one in by_chance.items()}
        measured |= {name: (part, one) for name, one in found.items()}
        if found:
            made |= {name: {**figure, **part.counts()} for name, figure in figures(found, part.media()).items()}
    shown = {one.name: one for one in metrics if one.name in measured}
    for name, metric in shown.items():
        made[name] |= {"backend": metric.backend()}
        made[name] |= {"resampled": "per-sample counts" if metric.counts else "per-sample scores"}
    return {
        **asked.counts(),
        "metrics": {name: made[name]["value"] for name in shown},
        "chance": {name: chance[name] for name in shown if name in chance},
        "figures": {name: made[name] for name in shown},
        "interval": resampling(len(set(asked.media()))),
        "skipped": [asdict(one) for one in skipped],
        "notes": [note for metric in shown.values() for note in metric.notes(asked.scored, list(shown))],
        **dict(_by_type(measured)),
    }, _lines(asked, texts, {name: (metric, *measured[name]) for name, metric in shown.items()})


def _of_the_same_samples(metrics: Sequence[Metric]) -> list[list[Metric]]:
    """Metrics that select samples by the same rule: they are resampled alike."""
    groups: dict[Any, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(type(metric).select, []).append(metric)
    return list(groups.values())


def _differs(metric: Metric, found: Mapping[str, Measured]) -> bool:
    """Whether it is no other form of a metric, or gives another value."""
    main = found.get(metric.other_form_of)
    return main is None or abs(found[metric.name].value - main.value) >= _ROUNDING


def _by_type(measured: Mapping[str, tuple[_Asked, Measured]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figure of each answer type and question type, where the data have them."""
    name = judge(measured)
    if name is None:
        return
    asked, whole = measured[name]
    for kind in ("answer_type", "question_type"):
        counts, media, places = asked.counts_by(kind), asked.media(), dict[str, list[int]]()
        for place, sample in enumerate(asked.scored):
            if value := getattr(sample, kind):
                places.setdefault(value, []).append(place)
        parts = {}
        for value, of in sorted(places.items()):
            part = {name: Measured(whole.statistics[of], whole.aggregate)}
            figure = figures(part, [media[place] for place in of], over_samples=False)[name]
            parts[value] = {"metric": name, **figure, **counts[value]}
        if parts:
            yield f"by_{kind}", parts


def _lines(
    asked: _Asked, texts: Mapping[str, str], measured: Mapping[str, tuple[Metric, _Asked, Measured]]
) -> list[dict[str, Any]]:
    """Each sample's line, with its scores, and its statistics where these are no score."""
    lines = {one.id: _line(one, texts[one.id], asked.digests.get(one.media)) for one in asked.scored}
    done = set()
    for name, (metric, part, one) in measured.items():
        values = {name: one.per_sample} if metric.per_sample else {}
        if metric.counts and metric.counts not in done:
            done.add(metric.counts)
            whole = one.statistics.astype(np.int64)
            values[metric.counts] = whole if (whole == one.statistics).all() else one.statistics
        for key, column in values.items():
            for sample, value in zip(part.scored, column.tolist(), strict=True):
                lines[sample.id]["scores"][key] = value
    return list(lines.values())


def _line(sample: Sample, text: str, digest: str | None) -> dict[str, Any]:
    line = {"id": sample.id, "task": sample.task.value, "media": sample.media, "prompt": sample.prompt}
    line |= {"digest": digest} if digest else {}
    if sample.task is Task.CAPTION:
        wanted: dict[str, Any] = {"references": list(sample.references)}
    else:
        types = {"question_type": sample.question_type, "answer_type": sample.answer_type}
        wanted = {"answers": dict(sample.answers)} | {key: value for key, value in types.items() if value}
    return {**line, **wanted, "text": text, "scores": {}}
