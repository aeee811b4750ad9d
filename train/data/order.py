"""In which order an epoch goes through its items: shuffled, and in batches of items of like length.

Rows that do not fit in memory are gone through by blocks: these in random order, some of them read at a time, and their
items shuffled among themselves. Against full shuffling that loses that any two items may meet in a batch: an item meets
those of the blocks that are read with its own, other ones in each epoch. All is a pure function of what is passed.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

_POOL = 32  # batches within which items are grouped by length: little padding, still random
_WINDOW = 1 << 29  # bytes of blocks that are read, and shuffled, together: twice that is mapped


def shuffled(items: np.ndarray, batch_size: int, lengths: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One stretch of batches, each the numbers of its items; `lengths` are those of all that there are."""
    order, pool = rng.permutation(items), _POOL * batch_size
    groups: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(lengths[part], kind="stable")]
        groups += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    return [groups[place] for place in rng.permutation(len(groups))]


def shuffled_blocks(
    blocks: np.ndarray, sizes: np.ndarray, batch_size: int, lengths: np.ndarray, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """Stretches of batches, each of the items of some blocks; there are as many batches as without blocks.

    `blocks` (items,) is the block of each item, `sizes` their bytes by number. What would not fill a batch at the end
    of a stretch, of its last block, goes to the next one.
    """
    used, of_items = np.unique(blocks, return_inverse=True)
    order = rng.permutation(len(used))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ranks = rank[of_items]
    items = np.lexsort((rng.random(len(blocks)), ranks))
    windows = (np.cumsum(sizes[used][order]) - 1) // _WINDOW  # a block that crosses a border begins the next window
    ends = np.searchsorted(windows[ranks[items]], np.unique(windows), side="right") // batch_size * batch_size
    ends[-1] = len(items)
    return [shuffled(items[start:end], batch_size, lengths, rng) for start, end in pairwise([0, *ends.tolist()])]


def in_blocks(blocks: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """The items in the order of their blocks, in parts of as many blocks as are read together."""
    order, used = np.argsort(blocks, kind="stable"), np.unique(blocks)
    windows = (np.cumsum(sizes[used]) - 1) // _WINDOW
    return np.split(order, np.searchsorted(blocks[order], used[np.flatnonzero(np.diff(windows)) + 1]))


def without_first(stretches: Sequence[list[np.ndarray]], count: int) -> list[list[np.ndarray]]:
    """What is left of the stretches behind so many batches."""
    left = []
    for stretch in stretches:
        left.append(stretch[count:])
        count = max(0, count - len(stretch))
    return [stretch for stretch in left if stretch]
