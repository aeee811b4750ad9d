"""All rows of a feature set as one array, in the order of its blocks: stretch by stretch, or with Dask.

Letters: N media, V views, L layers, T tokens, D hidden size.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from epalm.cache.blocks import Record, read_values, require_fit
from epalm.cache.objects.base import Objects
from epalm.cache.reader import NONE, FeatureReader, RowIndex
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError, UsageError

if TYPE_CHECKING:
    import dask.array as da


class RowTable:
    """Some layers and views of all media that have these views, in the order of blocks.

    `digests` (N,) are the media in order, `views` the second axis, `spec` what the rows are rows of, `left_out` the
    number of media that lack a view.
    """

    def __init__(
        self,
        objects: Objects,
        records: Sequence[Record],
        spec: FeatureSpec,
        layers: Sequence[int] | None = None,
        views: Sequence[int] | None = None,
        tokens: str | None = None,
    ) -> None:
        """See `FeatureSet.to_dask`."""
        chosen = spec.layers if layers is None else tuple(sorted(set(layers)))
        self.spec = spec.narrowed(tokens or spec.rule, chosen)
        if not records:
            raise CacheError(f"{spec.name} holds no row yet", hint="run epalm extract")
        index = RowIndex(records)
        self.views = index.views_of() if views is None else tuple(sorted(set(views)))
        if views is None and not self.views:
            raise UsageError(f"no view is there for every medium of {spec.name}", hint="choose with --views 0")
        if not self.views or not index.places.keys() >= set(self.views):
            unknown = [view for view in self.views if view not in index.places]
            raise UsageError(f"{spec.name} does not hold views {unknown}; it has {sorted(index.places)}")
        places = np.array([index.places[view] for view in self.views])  # (V, N)
        media = np.flatnonzero((places != NONE).all(axis=0))
        if not len(media):
            raise UsageError(f"no medium of {spec.name} has all of the views {list(self.views)}")
        media = media[np.argsort(places[0, media])]
        names = list(index.numbers)
        self.digests = [names[number] for number in media]
        self.left_out = len(names) - len(media)
        self._objects, self._records, self._stored, self._places = objects, records, spec, places[:, media]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(N, V, L, T, D)."""
        return len(self.digests), len(self.views), *self.spec.row_shape

    @property
    def bytes(self) -> int:
        """Of all values as they are stored."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.spec.stored_dtype).itemsize

    def stretches(self, rows: int) -> Iterator[np.ndarray]:
        """The values in the stored dtype, so many rows at a time. Raises CacheError for a damaged block."""
        records = [record for record in self._records if not set(self.views).isdisjoint(record.views)]
        reader = FeatureReader(self._objects, records, self._stored, wanted=self.spec)
        numbers = reader.rows_of(self.digests)
        parts = [numbers[start : start + rows] for start in range(0, len(numbers), rows)]
        of_parts = [np.concatenate([reader.blocks_of(part, view=view) for view in self.views]) for part in parts]
        for part, blocks in zip(parts, reader.ahead(map(np.unique, of_parts)), strict=True):
            yield np.stack([reader.gather(part, view=view, blocks=blocks) for view in self.views], axis=1)

    def to_dask(self) -> "da.Array":
        """The values as float32: each block is one delayed read, checked against its record."""
        import dask.array as da
        from dask.delayed import delayed

        blocks = []
        for record in self._records:
            shape = (len(record.rows) * len(record.views), *self.spec.row_shape)
            read = delayed(partial(_read_pairs, self._objects, record, self._stored, self.spec))()
            blocks.append(da.from_delayed(read, shape, dtype=np.float32))
        pairs, views = da.concatenate(blocks), []
        for places in self._places:
            whole = bool((np.diff(places) == 1).all())  # then nothing is copied
            views.append(pairs[int(places[0]) : int(places[-1]) + 1] if whole else pairs[places])
        array: da.Array = da.stack(views, axis=1)
        return array


def _read_pairs(objects: Objects, record: Record, spec: FeatureSpec, wanted: FeatureSpec) -> np.ndarray:
    """A block's values, those of `wanted`, for each (row, view) pair, in float32."""
    require_fit(record, spec)
    return spec.narrow(read_values(objects, record).reshape(-1, *spec.row_shape), wanted).astype(np.float32)
