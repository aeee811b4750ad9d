"""What a training cannot reach as it is set: known from its numbers, and said before the first step.

Knows numbers and texts; knows no settings objects.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from epalm.samples import Sample
from epalm.train.data.text import TextFormat
from epalm.train.data.text_length import SHORTEST_ANSWER
from epalm.train.schedule import Schedule

_FEW_STEPS = 300  # a connector that starts at random takes some hundred to be of use


def schedule_shortfalls(
    schedule: Schedule, steps: int, steps_per_epoch: int, max_steps: int | None = None
) -> Iterator[str]:
    """Of a training of so many steps: a warm-up that does not end, too few steps; each with what to set."""
    if schedule.warmup_steps >= steps:
        ends = schedule.rate(steps - 1, (steps - 1) // steps_per_epoch)
        yield (
            f"the warm-up takes {schedule.warmup_steps:,} steps and the training {steps:,}: the connector's rate ends "
            f"at {ends:.1e} and never reaches its peak of {schedule.peak_lr:.1e}; set "
            f"optim.warmup_steps={steps // 10}, or take --recipe own, which fits both to the data"
        )
    if steps < _FEW_STEPS:
        limited = max_steps is not None and max_steps <= steps
        longer = (
            f"optim.max_steps={_FEW_STEPS}"
            if limited
            else f"optim.epochs={math.ceil(_FEW_STEPS / steps_per_epoch)} or optim.min_steps={_FEW_STEPS}"
        )
        yield f"{steps:,} steps are few for a connector that begins at random: set {longer} at least"


def length_shortfalls(given: np.ndarray, whole: np.ndarray, max_length: int, positions: int) -> Iterator[str]:
    """Of captions and answers that decoding would cut: how many of how many, and what would hold them.

    Of each, `given` (M,) tokens stand before it, 1 before a caption, and `whole` (M,) at its end.
    """
    cut = whole > np.maximum(max_length, given + SHORTEST_ANSWER)
    for name, kind in (("captions", given == 1), ("answers, with their questions,", given > 1)):
        if (cut & kind).any():
            longest = int(whole[cut & kind].max()) + 1  # its end
            yield (
                f"{(cut & kind).sum():,} of {kind.sum():,} training {name} are longer than decode.max_length, "
                f"{max_length} tokens, and would be cut there: set decode.max_length={min(longest, positions)}"
            )


def text_shortfalls(samples: Sequence[Sample], text: TextFormat) -> Iterator[str]:
    """Of texts in which the name of a control token is written, which a reader may have meant as one."""
    count = text.with_control_tokens(
        "\n".join((sample.prompt or "", *sample.answers, *sample.references)) for sample in samples
    )
    if count:
        yield (
            f"the texts of {count:,} of {len(samples):,} training samples have names of control tokens in them, such "
            'as "</s>": they are encoded as the characters that they are'
        )
