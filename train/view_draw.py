"""Which view of a medium an epoch trains on: a pure function of (seed, epoch, medium). Knows no features."""

from collections.abc import Sequence

import numpy as np

_DIGITS = 16  # of a digest: 64 bits


def draw_views(digests: Sequence[str], views: Sequence[int], *, seed: int, epoch: int) -> np.ndarray:
    """One of `views` for each medium (len(digests),) int64, whatever the order, batch or process it is drawn in."""
    media = np.fromiter((int(digest[:_DIGITS], 16) for digest in digests), np.uint64, len(digests))
    salt = np.uint64(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    drawn: np.ndarray = np.asarray(views, np.int64)[_mix(media ^ salt) % np.uint64(len(views))]
    return drawn


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of the value."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed
