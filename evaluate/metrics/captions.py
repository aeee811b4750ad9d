"""Caption measures: BLEU-1…4, METEOR, ROUGE-L, CIDEr, SPICE and SPIDEr, of captions after PTB tokenisation.

Values are fractions, as pycocoevalcap gives them (CIDEr: 0 … 10). Its CIDEr is the variant that the metric's authors
call CIDEr-D: clipped counts, and a Gaussian penalty on the length. What cannot run is skipped, with the reason.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np

from epalm.evaluate.metrics.cider import cider
from epalm.evaluate.metrics.java import MetricError, find_java
from epalm.evaluate.metrics.measures import (
    BLEU,
    CAPTION_METRICS,
    ORDERS,
    Measure,
    Skipped,
    bleu_of_sums,
    mean_measure,
    meteor_of_sums,
)
from epalm.evaluate.metrics.meteor import meteor
from epalm.evaluate.metrics.spice import spice
from epalm.evaluate.metrics.tokenizer import Tokens

LIBRARY = f"pycocoevalcap {version('pycocoevalcap')}"
Measures = dict[str, Measure]


def caption_measures(
    predictions: Tokens, references: Tokens, metrics: Sequence[str] = CAPTION_METRICS
) -> tuple[Measures, list[Skipped]]:
    """The measures asked for, of tokenised captions, one per id, against tokenised references; and those skipped."""
    found: Measures = {}
    skipped: list[Skipped] = []
    ordered = {key: references[key] for key in predictions}
    asked = {*metrics, *(_OF_SPIDER if "SPIDEr" in metrics else ())}
    with ThreadPoolExecutor(1, "java") as beside:  # Java computes in a process of its own: Python need not wait
        running = {
            names: beside.submit(compute, predictions, ordered) for names, compute in _IN_JAVA if asked & set(names)
        }
        for names, compute in _HERE:
            found |= compute(predictions, ordered) if asked & set(names) else {}
        for names, result in running.items():
            try:
                found |= result.result()
            except MetricError as fault:
                without = [*names, "SPIDEr"] if _OF_SPIDER & set(names) else names
                skipped += [Skipped(name, fault.message, fault.hint) for name in without if name in metrics]
    if "SPIDEr" in metrics and found.keys() >= _OF_SPIDER:
        found["SPIDEr"] = _spider(found["SPICE"], found["CIDEr"])
    return {name: found[name] for name in CAPTION_METRICS if name in metrics and name in found}, skipped


def _bleu_columns(predictions: Tokens, references: Tokens) -> np.ndarray:
    """(N, 10): matches and guesses of 1- to 4-grams, the caption's length, and that of the nearest reference."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    rows = []
    for key, (said,) in predictions.items():  # one by one: the library's scorer keeps all n-grams
        counts = cook_test(said, cook_refs(references[key], n=ORDERS), n=ORDERS)
        length = counts["testlen"]
        nearest = min((abs(one - length), one) for one in counts["reflen"])[1]
        rows.append([*counts["correct"], *counts["guess"], length, nearest])
    return np.array(rows, dtype=np.float64)


def _bleu(predictions: Tokens, references: Tokens) -> Measures:
    columns = _bleu_columns(predictions, references)
    sums, count, measures = columns.sum(axis=0)[None], len(columns), {}
    for order, name in enumerate(BLEU, start=1):
        of_sums = bleu_of_sums(order)
        measures[name] = Measure(float(of_sums(sums, count)[0]), columns, of_sums, LIBRARY)
    return measures


def _meteor(predictions: Tokens, references: Tokens) -> Measures:
    value, columns = meteor(predictions, references)
    return {"METEOR": Measure(value, columns, meteor_of_sums, f"METEOR 1.5 of {LIBRARY}, {find_java()}")}


def _rouge(predictions: Tokens, references: Tokens) -> Measures:
    from pycocoevalcap.rouge.rouge import Rouge

    value, scores = Rouge().compute_score(references, predictions)
    return {"ROUGE-L": mean_measure(scores, LIBRARY, float(value))}


def _cider(predictions: Tokens, references: Tokens) -> Measures:
    value, scores = cider(predictions, references)
    return {"CIDEr": mean_measure(scores, LIBRARY, value)}


def _spice(predictions: Tokens, references: Tokens) -> Measures:
    value, scores = spice(predictions, references)
    return {"SPICE": mean_measure(scores, f"SPICE 1.0 of {LIBRARY}, {find_java()}", value)}


def _spider(spice_measure: Measure, cider: Measure) -> Measure:
    """The mean of SPICE and CIDEr (Liu et al., ICCV 2017)."""
    scores = (spice_measure.columns + cider.columns)[:, 0] / 2
    return mean_measure(scores, spice_measure.backend, (spice_measure.value + cider.value) / 2)


_OF_SPIDER = {"SPICE", "CIDEr"}
_Way = tuple[tuple[str, ...], Callable[[Tokens, Tokens], Measures]]
_IN_JAVA: tuple[_Way, ...] = ((("METEOR",), _meteor), (("SPICE",), _spice))
_HERE: tuple[_Way, ...] = ((BLEU, _bleu), (("ROUGE-L",), _rouge), (("CIDEr",), _cider))
