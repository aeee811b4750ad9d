"""Rows of a feature set one stretch after the other, each block verified as it is read: for copies in other formats.

Letters: N media, R media of one stretch, V views, L layers, T tokens, D hidden size. Holds a
stretch and a block for each view in memory, never the set. Knows nothing about the formats.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from epalm.cache.blocks import Record, read_values
from epalm.cache.feature_set import FeatureSet
from epalm.errors import CacheError, UsageError

_STRETCH = 512  # media that are given at a time, as many as a block has
_STRETCH_BYTES = 256 << 20  # of rows so wide that fewer are given
_NONE = -1


def stretch_rows(row_bytes: int) -> int:
    """How many rows of that many bytes each are taken at a time; files hold a checksum for each such stretch."""
    return max(1, min(_STRETCH, _STRETCH_BYTES // row_bytes))


class ChosenRows:
    """Some layers and views of all media that have them. Iterating gives float arrays (R, V, L, T, D), in order.

    `digests` are the media in that order, `views` the second axis, `spec` what the rows are rows of, `left_out` the
    number of media that lack a view.
    """

    def __init__(
        self, features: FeatureSet, *, layers: Sequence[int] | None = None, views: Sequence[int] | None = None
    ) -> None:
        """`layers` are block numbers [default: all stored], `views` [default: those that every medium has].

        Raises:
            UsageError: the set does not hold these layers or views.
            CacheError: a record is damaged, or there is no row.
        """
        self._features = features
        stored = features.spec.layers
        chosen = stored if layers is None else tuple(sorted(set(layers)))
        if lacking := [layer for layer in chosen if layer not in stored]:
            raise UsageError(f"{features.name} does not hold layers {lacking}; it has {list(stored)}")
        self._positions = None if chosen == stored else [stored.index(layer) for layer in chosen]
        self.spec = replace(features.spec, layers=chosen)
        self._records = features.records()
        if not self._records:
            raise CacheError(f"{features.name} holds no row yet", hint="run epalm extract")
        names, places = _index(self._records)
        self.views = _choose(features, places, views)
        here = [places[view] for view in self.views]
        whole = np.flatnonzero(np.all([place[0] != _NONE for place in here], axis=0))
        if not len(whole):
            raise UsageError(f"no medium of {features.name} has all of the views {list(self.views)}")
        # Media whose views lie in the same blocks follow each other, so that each block is read about once.
        keys = [here[0][1][whole], *[place[0][whole] for place in reversed(here)]]
        order = whole[np.lexsort(keys)]
        self._places = [(blocks[order], rows[order]) for blocks, rows in here]
        self.digests = [names[place] for place in order]
        self.left_out = len(names) - len(order)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(N, V, L, T, D)."""
        return len(self.digests), len(self.views), *self.spec.row_shape

    @property
    def bytes(self) -> int:
        """Of all values."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.spec.stored_dtype).itemsize

    def __iter__(self) -> Iterator[np.ndarray]:
        """Raises CacheError for a damaged block."""
        held: dict[int, tuple[int, np.ndarray]] = {}  # by position of the view: the block that was read for it last
        step = stretch_rows(self.bytes // len(self.digests))
        for start in range(0, len(self.digests), step):
            stretch = slice(start, start + step)
            count = len(self.digests[stretch])
            values = np.empty((count, *self.shape[1:]), self.spec.stored_dtype)
            for position, (blocks, rows) in enumerate(self._places):
                for block in np.unique(blocks[stretch]):
                    mine = blocks[stretch] == block
                    held[position] = int(block), self._read(int(block), held)
                    column = self._records[block].views.index(self.views[position])
                    found = held[position][1][rows[stretch][mine], column]
                    values[mine, position] = found if self._positions is None else found[:, self._positions]
            yield values

    def _read(self, block: int, held: dict[int, tuple[int, np.ndarray]]) -> np.ndarray:
        for one, values in held.values():
            if one == block:
                return values
        self._features.require_fit(self._records[block])
        return read_values(self._features.objects, self._records[block])


def _index(records: Sequence[Record]) -> tuple[list[str], dict[int, tuple[np.ndarray, np.ndarray]]]:
    """All digests; view → number of the block (N,) and row within it (N,) of each."""
    numbers: dict[str, int] = {}
    parts: list[np.ndarray] = []
    for record in records:
        parts.append(np.fromiter((numbers.setdefault(row, len(numbers)) for row in record.rows), np.int64))
    places: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for block, (record, media) in enumerate(zip(records, parts, strict=True)):
        for view in record.views:
            if view not in places:
                places[view] = np.full(len(numbers), _NONE), np.full(len(numbers), _NONE)
            places[view][0][media] = block
            places[view][1][media] = np.arange(len(media))
    return list(numbers), places


def _choose(
    features: FeatureSet, places: dict[int, tuple[np.ndarray, np.ndarray]], views: Sequence[int] | None
) -> tuple[int, ...]:
    if views is None:
        common = tuple(view for view, (blocks, _) in sorted(places.items()) if (blocks != _NONE).all())
        if not common:
            raise UsageError(f"no view is there for every medium of {features.name}", hint="choose with --views 0")
        return common
    chosen = tuple(sorted(set(views)))
    if not chosen or (lacking := [view for view in chosen if view not in places]):
        raise UsageError(f"{features.name} does not hold views {lacking if chosen else []}; it has {sorted(places)}")
    return chosen
