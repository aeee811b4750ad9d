"""BLEU-1 … BLEU-4 of the corpus, by pycocoevalcap.

Source: Papineni et al., BLEU, ACL 2002, with the smoothing of pycocoevalcap: a 1e-15 for each empty count.
"""

import numpy as np

from epalm.evaluate.metrics.metric import Inputs, Metric
from epalm.samples import Task

ORDERS = 4  # of n-grams
_TINY, _SMALL = 1e-15, 1e-9  # what pycocoevalcap adds to counts, so that none divides by zero


class Bleu(Metric):
    """BLEU of n-grams up to `order`."""

    task, library = Task.CAPTION, "pycocoevalcap"
    summary = "n-gram precision with brevity penalty, of the corpus"
    counts, per_sample, chance = "BLEU counts", False, False

    def __init__(self, order: int) -> None:
        self.order, self.name = order, f"BLEU-{order}"

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """(N, 10): matches and guesses of 1- to 4-grams, the caption's length, and that of the nearest reference."""
        from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

        predictions, references = inputs.tokens()
        rows = []
        for key, (text,) in predictions.items():  # one by one: the library's scorer keeps all n-grams
            counts = cook_test(text, cook_refs(references[key], n=ORDERS), n=ORDERS)
            length = counts["testlen"]
            nearest = min((abs(one - length), one) for one in counts["reflen"])[1]
            rows.append([*counts["correct"], *counts["guess"], length, nearest])
        return np.array(rows, dtype=np.float64)

    def aggregate(self, sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
        """Values (R,) of sums (R, 10)."""
        matches, guesses = sums[:, : self.order], sums[:, ORDERS : ORDERS + self.order]
        precision = np.prod((matches + _TINY) / (guesses + _SMALL), axis=1) ** (1 / self.order)
        ratio = (sums[:, -2] + _TINY) / (sums[:, -1] + _SMALL)
        # A ratio of nearly zero stands for an empty prediction: its penalty is zero.
        return np.asarray(precision * np.exp(np.minimum(0.0, 1 - 1 / np.maximum(ratio, _TINY))))


METRICS = tuple(Bleu(order) for order in range(1, ORDERS + 1))
