"""Which samples of a data set are used: those of a split and of the recipe's tasks, or a few of them.

Which few is a pure function of the seed and the samples.
"""

import math
from collections.abc import Sequence

import numpy as np

from epalm.config import Config
from epalm.errors import UsageError
from epalm.samples import Dataset, Sample, Task

_TYPE_WORDS = 2  # of a question: "how many", "what color", "is the"


def chosen_samples(dataset: Dataset, config: Config, split: str) -> tuple[Sample, ...]:
    """A split's samples of the recipe's tasks."""
    return tuple(sample for sample in dataset.split(split) if sample.task in config.data.tasks)


def few_shot(
    samples: Sequence[Sample], amount: int | float | None, *, seed: int, balanced: bool = False
) -> tuple[Sample, ...]:
    """`amount` samples that can be trained on, a count or (a float) a share of them; None: all.

    `balanced` draws from each type of question in turn, as long as it has some. What a smaller amount gives is part
    of what a larger one gives, and file order is kept.

    Raises:
        UsageError: fewer are there than are asked for.
    """
    if amount is None:
        return tuple(samples)
    usable = [n for n, s in enumerate(samples) if (s.references if s.task is Task.CAPTION else s.answers)]
    wanted = amount if isinstance(amount, int) else math.ceil(amount * len(usable))
    if wanted > len(usable):
        raise UsageError(
            f"data.few_shot asks for {wanted:,} samples, and there are {len(usable):,} to train on",
            hint=f"--few-shot {max(1, len(usable))}, or leave it out",
        )
    order = [usable[place] for place in np.random.default_rng(seed).permutation(len(usable))]
    if balanced:
        order = _in_turn(samples, order)
    return tuple(samples[place] for place in sorted(order[:wanted]))


def question_type(sample: Sample) -> str:
    """The data set's own type of the question, else its first words, lower case; a caption has one type."""
    return sample.question_type or " ".join((sample.prompt or "").lower().split()[:_TYPE_WORDS])


def _in_turn(samples: Sequence[Sample], order: Sequence[int]) -> list[int]:
    """First the first of each type, then the second of each, …; types in the order in which they come."""
    import pandas as pd

    kinds = pd.Series([question_type(samples[place]) for place in order], dtype=object)
    rounds = kinds.groupby(kinds).cumcount()
    return [order[at] for at in rounds.argsort(kind="stable")]
