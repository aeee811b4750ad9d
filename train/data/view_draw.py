"""Which view of its medium a sample trains on in an epoch. Knows no features."""

from collections.abc import Sequence

import numpy as np
import xxhash


def draw_views(names: Sequence[str], views: Sequence[int], *, seed: int, epoch: int) -> np.ndarray:
    """One of `views` for each named sample (len(names),) int64, whatever the order, batch or process it is drawn in.

    A pure function of (name, seed, epoch).
    """
    salt = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    drawn = (xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"), salt) for name in names)
    places = np.fromiter((number % len(views) for number in drawn), np.int64, len(names))
    return np.asarray(views, np.int64)[places]
