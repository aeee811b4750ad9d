"""ROUGE-L by pycocoevalcap."""

import numpy as np

from epalm.evaluate.metrics.metric import Inputs, Metric
from epalm.samples import Task


class Rouge(Metric):
    """Source: Lin, ROUGE, 2004."""

    name, task, library = "ROUGE-L", Task.CAPTION, "pycocoevalcap"
    summary = "longest common subsequence, F-measure"
    priority, chance = 1, False

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """Each caption's score (N,)."""
        from pycocoevalcap.rouge.rouge import Rouge as Scorer

        predictions, references = inputs.tokens()
        scores: np.ndarray = Scorer().compute_score(references, predictions)[1]
        return scores


METRICS = (Rouge(),)
