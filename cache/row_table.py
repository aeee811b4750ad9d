"""All rows of a feature set at once: stretch by stretch, as a Dask array, and as a DataFrame of what they are.

Letters: N media, V views, L layers, T tokens, D hidden size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from epalm.cache.blocks import Record, read_values, require_fit
from epalm.cache.manifest import Manifest, names_by_digest
from epalm.cache.objects.base import Objects
from epalm.cache.reader import NONE, FeatureReader, RowIndex
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError, UsageError

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd


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
    ) -> None:
        """`layers` are block numbers [default: all stored], `views` [default: those that every medium has].

        Raises:
            UsageError: the set does not hold these layers or views.
            CacheError: there is no row.
        """
        chosen = spec.layers if layers is None else tuple(sorted(set(layers)))
        if unknown := [layer for layer in chosen if layer not in spec.layers]:
            raise UsageError(f"{spec.name} does not hold layers {unknown}; it has {list(spec.layers)}")
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
        self.spec = replace(spec, layers=chosen)
        self._objects, self._records, self._stored, self._places = objects, records, spec, places[:, media]
        self._layers = slice(None) if chosen == spec.layers else [spec.layers.index(layer) for layer in chosen]

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
        reader = FeatureReader(self._objects, records, self._stored)
        numbers = reader.rows_of(self.digests)
        for start in range(0, len(numbers), rows):
            part = numbers[start : start + rows]
            yield np.stack([reader.gather(part, view=view, layers=self._layers) for view in self.views], axis=1)

    def to_dask(self) -> "da.Array":
        """The values as float32: each block is one delayed read, checked against its record."""
        import dask.array as da
        from dask.delayed import delayed

        blocks = []
        for record in self._records:
            shape = (len(record.rows) * len(record.views), *self._stored.row_shape)
            read = delayed(partial(_read, self._objects, record, self._stored))()
            blocks.append(da.from_delayed(read, shape, dtype=self._stored.stored_dtype))
        pairs = da.concatenate(blocks)[:, self._layers]
        array: da.Array = da.stack([pairs[places] for places in self._places], axis=1).astype(np.float32)
        return array


def _read(objects: Objects, record: Record, spec: FeatureSpec) -> np.ndarray:
    """A block's values for each (row, view) pair."""
    require_fit(record, spec)
    return read_values(objects, record).reshape(-1, *spec.row_shape)


def rows_frame(records: Sequence[Record], manifests: Iterable[Manifest]) -> "pd.DataFrame":
    """A row for each medium of each block, in the order of blocks; see `FeatureSet.frame`."""
    import pandas as pd

    counts, names = [len(record.rows) for record in records], names_by_digest(manifests)
    digests = [digest for record in records for digest in record.rows]
    of_blocks = {
        "views": [record.views for record in records],
        "block": [record.block for record in records],
        "written": pd.to_datetime(np.array([record.time for record in records], float), unit="s", utc=True),
        "host": [record.written.get("host") for record in records],
        "device": [record.written.get("device") for record in records],
        "versions": [record.versions for record in records],
    }
    # Texts stay Python's: converting a million of them would take as long as all the rest.
    blocks = pd.DataFrame(of_blocks).astype({name: object for name in of_blocks if name != "written"})
    frame = blocks.take(np.repeat(np.arange(len(records)), counts)).reset_index(drop=True)
    frame.insert(0, "digest", pd.Series(digests, dtype=object))
    frame.insert(1, "names", pd.Series([names.get(digest, ()) for digest in digests], dtype=object))
    frame.insert(4, "row", np.concatenate([np.arange(count) for count in (*counts, 0)]))
    return frame
