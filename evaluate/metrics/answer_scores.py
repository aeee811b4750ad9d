"""Questions scored: exact match, soft accuracy and VQA accuracy, in each form in which it is published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epalm.evaluate.metrics.answers import (
    ENOUGH,
    exact_match,
    soft_accuracy,
    vqa_accuracy,
    vqa_accuracy_lavis,
    vqa_accuracy_lmms,
)
from epalm.evaluate.metrics.measures import ANSWER_METRICS, EPALM, Measure, Skipped, mean_measure
from epalm.samples import Sample

VQA = "VQA accuracy"
# Other forms of it, in which figures were published as well: given where they give another figure.
_VQA_FORMS = (f"{VQA} (lmms-eval)", f"{VQA} (LAVIS)")
_VQA_VERSION = f"{VQA} is that of the official vqaEval.py as it is now: normalised only where people's answers differ"
_VQA_OTHERS = "lmms-eval and LAVIS, as the earlier official script, always normalise the prediction"
_FEW_PEOPLE = "it needs three people's answers to a question, as it counts those who agree"
_ROUNDING = 1e-12
_JUDGES: Mapping[str, Callable[[str, Sample], float]] = {
    "exact match": lambda said, sample: exact_match(said, sample.answers),
    VQA: lambda said, sample: vqa_accuracy(said, sample.raw_answers),
    _VQA_FORMS[0]: lambda said, sample: vqa_accuracy_lmms(said, sample.raw_answers),
    _VQA_FORMS[1]: lambda said, sample: vqa_accuracy_lavis(said, sample.raw_answers),
    "VQA soft accuracy": lambda said, sample: soft_accuracy(said, sample.answers),
}


@dataclass(frozen=True)
class Judged:
    """Some measures, each with the samples that it is of, in the order of its columns; and what guesses got."""

    measures: dict[str, tuple[Sequence[Sample], Measure]]
    chance: dict[str, float]
    skipped: Sequence[Skipped] = ()
    notes: Sequence[str] = ()


def judge_answers(
    samples: Sequence[Sample], said: Mapping[str, str], guessed: Mapping[str, str], metrics: Sequence[str]
) -> Judged:
    """Judge what was said about questions, by id; `guessed` may be empty.

    VQA accuracy is of the questions that three people or more answered. Its other forms are among the measures where
    they give another figure.
    """
    measures: dict[str, tuple[Sequence[Sample], Measure]] = {}
    chance: dict[str, float] = {}
    skipped, notes = list[Skipped](), list[str]()
    for name in (*ANSWER_METRICS, *_VQA_FORMS):
        kind = VQA if name in _VQA_FORMS else name
        of = by_people(samples) if kind == VQA else samples
        if kind not in metrics or not of:
            continue
        measure = mean_measure([_JUDGES[name](said[sample.id], sample) for sample in of], EPALM)
        if name in _VQA_FORMS and abs(measure.value - measures[VQA][1].value) < _ROUNDING:
            continue
        measures[name] = of, measure
        if guessed:
            chance[name] = float(np.mean([_JUDGES[name](guessed[sample.id], sample) for sample in of]))
    if VQA in metrics:
        few = sum(0 < len(sample.raw_answers) < ENOUGH for sample in samples)
        if few and VQA not in measures:
            skipped.append(Skipped(VQA, _FEW_PEOPLE, "VQA soft accuracy and exact match need one answer"))
        elif few:
            notes.append(f"{few:,} of {len(samples):,} questions are left out of {VQA}: {_FEW_PEOPLE}")
        if any(len(sample.raw_answers) == ENOUGH for sample in samples):
            notes.append(f"{VQA} of three people's answers is 66.67 at most: each is compared with the two others")
    if VQA in measures:
        others = any(name in measures for name in _VQA_FORMS)
        notes.append(f"{_VQA_VERSION}; {_VQA_OTHERS}" if others else _VQA_VERSION)
    return Judged(measures, chance, skipped, notes)


def by_people(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those that three people or more answered, and those without a right answer, of a data set that has the former."""
    answered = [sample for sample in samples if len(sample.raw_answers) >= ENOUGH]
    if not answered:
        return ()
    return [sample for sample in samples if len(sample.raw_answers) >= ENOUGH or sample.unanswerable]
