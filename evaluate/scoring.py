"""Predictions → scores: per task, each figure with its interval, its backend and how many samples it is of."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from epalm.errors import MetricError
from epalm.evaluate.metrics.bootstrap import figures, resampling
from epalm.evaluate.metrics.metric import Inputs, Measured, Metric, measure
from epalm.evaluate.metrics.registry import choose_metrics, judge, metrics_for
from epalm.fingerprint import canonical_json
from epalm.samples import Prediction, Sample, Task

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Scores:
    """`tasks` as `scores.json` has them, and what each sample got; `digest` as `digest_samples` gives it."""

    tasks: dict[str, Any]
    per_sample: list[dict[str, Any]]
    digest: str


def chance_predictions(training: Sequence[Sample], samples: Sequence[Sample]) -> list[Prediction]:
    """What guessing gives: training's most common answer to the same question, else to any, or commonest caption.

    Nothing is guessed (an empty text) for a task that training lacks, and no sample gets a guess without training.
    """
    votes: dict[object, Counter[str]] = defaultdict(Counter)  # by the question, and by the task
    for sample in training:
        if sample.task is Task.CAPTION:
            votes[Task.CAPTION].update(sample.references)
        elif sample.answers:
            answer = max(sample.answers, key=lambda text: sample.answers[text])
            votes[Task.QA][answer] += 1
            votes[Task.QA, sample.prompt or ""][answer] += 1
    # Ties go to the first in alphabetical order, so that the guess does not depend on the order of samples.
    best = {key: min(texts, key=lambda text: (-texts[text], text)) for key, texts in votes.items() if texts}
    if not training:
        return []
    return [Prediction(one.id, best.get((one.task, one.prompt or ""), best.get(one.task, ""))) for one in samples]


class _Asked(NamedTuple):
    """The samples of a task: those there are, those expected of a limited scoring, and those with a prediction."""

    there: Sequence[Sample]
    expected: Sequence[Sample]
    scored: Sequence[Sample]

    def counts(self, kind: str = "task") -> dict[Any, dict[str, int]]:
        """How many samples there are of each task, or of each type of question or answer."""
        there, expected, scored = (Counter(getattr(sample, kind) for sample in samples) for samples in self)
        return {
            one: {"of": of, "expected": expected[one], "scored": scored[one], "missing": expected[one] - scored[one]}
            for one, of in there.items()
        }


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
        there, expected = (
            [sample for sample in some if sample.task is task and is_expected(sample)]
            for some in (samples if split is None else split, samples)
        )
        if expected:
            asked = _Asked(there, expected, [sample for sample in expected if sample.id in texts])
            wanted = metrics_for(task, choose_metrics() if metrics is None else metrics) if asked.scored else []
            tasks[task.value], per_sample = _score_task(asked, texts, guesses, wanted, digests or {})
            lines += per_sample
    return Scores(tasks, lines, digest_samples(samples))


def is_expected(sample: Sample) -> bool:
    """Whether there is anything to score a prediction against."""
    return bool(sample.references if sample.task is Task.CAPTION else sample.answers or sample.unanswerable)


def digest_samples(samples: Sequence[Sample]) -> str:
    """SHA-256 (hex) of what is asked and expected, in any order: scores of equal digests can be compared."""
    digests = []
    for one in filter(is_expected, samples):
        texts = [list(one.raw_answers), list(one.references)]
        asked = [one.id, one.media, one.prompt, dict(one.answers), *texts, one.unanswerable]
        digests.append(sha256(canonical_json(asked)).digest())
    return sha256(b"".join(sorted(digests))).hexdigest()


def _score_task(
    asked: _Asked,
    texts: Mapping[str, str],
    guesses: Mapping[str, str],
    metrics: Sequence[Metric],
    digests: Mapping[str, str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `scores.json` has of the task, and the line of each sample."""
    measured: dict[str, tuple[_Asked, Measured]] = {}
    made: dict[str, dict[str, Any]] = {}
    chance: dict[str, float] = {}
    skipped: dict[str, MetricError] = {}
    notes: list[str] = []
    groups: dict[Any, list[Metric]] = {}  # metrics that select samples by the same rule: they are resampled alike
    for metric in metrics:
        groups.setdefault(type(metric).select, []).append(metric)
    for group in groups.values():
        try:
            part = _Asked(*map(group[0].select, asked))
        except MetricError as error:
            skipped |= {one.name: error for one in group if not one.other_form_of}
            continue
        if not part.scored:
            continue
        guessed = [guesses[one.id] for one in part.scored] if guesses else []
        inputs = Inputs(part.scored, [texts[one.id] for one in part.scored], guessed)
        own, without = measure(inputs, group)
        skipped |= without
        values = {name: one.value for name, one in own.items()}
        for one in group:  # another form of a metric is shown where it gives another value
            main = values.get(one.other_form_of)
            if one.name in values and main is not None and abs(values[one.name] - main) < _ROUNDING:
                del own[one.name]
        if guesses:
            guessing = [one for one in group if one.chance and one.name in own]
            chance |= {name: one.value for name, one in measure(inputs.guessed(), guessing)[0].items()}
        notes += [note for one in group if one.name in own for note in one.notes(asked.scored, list(own))]
        measured |= {name: (part, one) for name, one in own.items()}
        counts = part.counts()[part.scored[0].task]
        if own:
            made |= {name: figure | counts for name, figure in figures(own, _media(part, digests)).items()}
    shown = [one for one in metrics if one.name in measured]
    for metric in shown:
        resampled = "per-sample counts" if metric.counts else "per-sample scores"
        made[metric.name] |= {"backend": metric.backend(), "resampled": resampled}
    return {
        **asked.counts()[asked.expected[0].task],
        "metrics": {one.name: made[one.name]["value"] for one in shown},
        "chance": {one.name: chance[one.name] for one in shown if one.name in chance},
        "figures": {one.name: made[one.name] for one in shown},
        "interval": resampling(len(set(_media(asked, digests)))),
        "skipped": [
            {"metric": one.name, "reason": skipped[one.name].message, "hint": skipped[one.name].hint}
            for one in metrics
            if one.name in skipped
        ],
        "notes": notes,
        **_by_type(measured, digests),
    }, _lines(asked, texts, [(metric, *measured[metric.name]) for metric in shown], digests)


def _media(asked: _Asked, digests: Mapping[str, str]) -> list[str]:
    """What each scored sample is about: the digest of its medium, where it is not known its name."""
    return [digests.get(sample.media, sample.media) for sample in asked.scored]


def _by_type(measured: Mapping[str, tuple[_Asked, Measured]], digests: Mapping[str, str]) -> dict[str, Any]:
    """The figure of each answer type and question type, where the data have them."""
    by_type: dict[str, Any] = {}
    if (name := judge(measured)) is None:
        return by_type
    asked, whole = measured[name]
    media = _media(asked, digests)
    for kind in ("answer_type", "question_type"):
        counts, types = asked.counts(kind), [getattr(sample, kind) or "" for sample in asked.scored]
        for value in sorted({*types} - {""}):
            of = [place for place, one in enumerate(types) if one == value]
            part = {name: Measured(whole.statistics[of], whole.aggregate)}
            figure = figures(part, [media[place] for place in of])[name]
            by_type.setdefault(f"by_{kind}", {})[value] = {"metric": name, **figure, **counts[value]}
    return by_type


def _lines(
    asked: _Asked,
    texts: Mapping[str, str],
    measured: Sequence[tuple[Metric, _Asked, Measured]],
    digests: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Each sample's line, with its scores, and its statistics where these are no score."""
    lines: dict[str, dict[str, Any]] = {}
    for one in asked.scored:
        line: dict[str, Any] = {"id": one.id, "task": one.task.value, "media": one.media, "prompt": one.prompt}
        line |= {"digest": digests[one.media]} if one.media in digests else {}
        if one.task is Task.CAPTION:
            line["references"] = list(one.references)
        else:
            types = {"question_type": one.question_type, "answer_type": one.answer_type}
            line |= {"answers": dict(one.answers)} | {key: value for key, value in types.items() if value}
        lines[one.id] = {**line, "text": texts[one.id], "scores": {}}
    columns: dict[str, tuple[_Asked, np.ndarray]] = {}
    for metric, part, values in measured:
        if metric.per_sample:
            columns[metric.name] = part, values.per_sample
        if metric.counts:
            columns.setdefault(metric.counts, (part, values.statistics))
    for name, (part, column) in columns.items():
        whole = column.astype(np.int64)
        numbers = whole if column.ndim == 2 and (whole == column).all() else column
        for sample, number in zip(part.scored, numbers.tolist(), strict=True):
            lines[sample.id]["scores"][name] = number
    return list(lines.values())
