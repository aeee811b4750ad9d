"""Whether texts fit the positions of a language model: told before the first step, not at the step that meets one.

Perceptual token and prompt take no position.
"""

from collections.abc import Iterator, Sequence

from epalm.errors import UsageError
from epalm.samples import Sample
from epalm.train.data.text import TextFormat

SHORTEST_ANSWER = 5  # tokens that an answer gets at least when it is decoded, however long its question
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
    candidates = [one for one in _targets(sample) if given + len(one.encode(errors="replace")) + _ADDED > positions]
    if not candidates:
        return 0
    return len(text.given(sample)) + max(map(len, text.tokenise(candidates))) + 1


def _targets(sample: Sample) -> Iterator[str]:
    for target in (*sample.answers, *sample.references):
        yield target.strip()
