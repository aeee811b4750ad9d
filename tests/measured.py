"""Scores as metrics give them."""

from collections.abc import Sequence

import numpy as np

from epalm.evaluate.metrics.answers import ExactMatch
from epalm.evaluate.metrics.metric import Measured


def mean_of(scores: Sequence[float] | np.ndarray) -> Measured:
    """Of which a mean is the value."""
    return Measured(np.asarray(scores, dtype=np.float64)[:, None], ExactMatch().aggregate)
