"""What a training cannot reach as it is set, known from its numbers and texts, and said before the first step."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from epalm.errors import UsageError
from epalm.samples import Sample
from epalm.train.data.text import SHORTEST_ANSWER, TextFormat
from epalm.train.step import Schedule

_FEW_STEPS = 300  # a connector that starts at random takes some hundred to be of use
_NAMED = 3  # samples named in a message; the rest is counted
_ADDED = 4  # tokens that stand around the words at most: </s>, ?, </a>, </s>


def require_short(samples: Sequence[Sample], text: TextFormat, positions: int) -> None:
    """Raise UsageError when a question with one of its answers, or a caption, is longer than `positions` tokens."""
    too_long = [(sample.id, length) for sample in samples if (length := _longest(sample, text, positions)) > positions]
    if too_long:
        named = ", ".join(f"{name} ({length:,})" for name, length in too_long[:_NAMED])
        rest = f" and {len(too_long) - _NAMED:,} more" if len(too_long) > _NAMED else ""
        raise UsageError(
            f"the language model has {positions:,} positions, and the texts of {len(too_long):,} samples have more "
            f"tokens: {named}{rest}",
            hint="shorten them or take them out of the data",
        )


def _longest(sample: Sample, text: TextFormat, positions: int) -> int:
    """Tokens of a sample's longest text; 0 where it is sure to fit, since a token is a byte at least."""
    given = len((sample.prompt or "").encode(errors="replace"))
    targets = [target.strip() for target in (*sample.answers, *sample.references)]
    targets = [target for target in targets if given + len(target.encode(errors="replace")) + _ADDED > positions]
    return len(text.given(sample)) + max(map(len, text.tokenise(targets))) + 1 if targets else 0


def schedule_warnings(
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
        longer = f"optim.epochs={math.ceil(_FEW_STEPS / steps_per_epoch)} or optim.min_steps={_FEW_STEPS}"
        if max_steps is not None and max_steps <= steps:
            longer = f"optim.max_steps={_FEW_STEPS}"
        yield f"{steps:,} steps are few for a connector that begins at random: set {longer} at least"


def length_warnings(given: np.ndarray, whole: np.ndarray, max_length: int, positions: int) -> Iterator[str]:
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


def text_warnings(samples: Sequence[Sample], text: TextFormat) -> Iterator[str]:
    """Of texts in which the name of a control token is written, which a reader may have meant as one."""
    count = text.with_control_tokens(
        "\n".join((sample.prompt or "", *sample.answers, *sample.references)) for sample in samples
    )
    if count:
        yield (
            f"the texts of {count:,} of {len(samples):,} training samples have names of control tokens in them, such "
            'as "</s>": they are encoded as the characters that they are'
        )
