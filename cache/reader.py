"""Rows out of a feature set, fast: by number, and all of them as an array.

Letters: N media, V views, L layers, T tokens, D hidden size. Checks each block once per open.
Gathers with numpy: torch's index_select on several CPU threads is many times slower.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import psutil

from epalm.cache.blocks import Record, read_values, require_fit, require_size, require_values
from epalm.cache.objects.base import Objects
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError, UsageError

if TYPE_CHECKING:
    import dask.array as da

NONE = -1
_MEMORY_SHARE = 0.5  # of what is free: more than this is mapped
_AT_ONCE = 8  # blocks read side by side


class RowIndex:
    """Media by number, and where each one's rows are in the sequence of (row, view) pairs of all blocks.

    `numbers` are those of digests, `offsets` (blocks + 1,) where each block begins, `places[view]` (N,) where each
    medium's row of that view is, or NONE.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.numbers: dict[str, int] = {}
        self.offsets = np.zeros(len(records) + 1, np.int64)
        np.cumsum([len(record.rows) * len(record.views) for record in records], out=self.offsets[1:])
        media = [
            np.fromiter((self.numbers.setdefault(row, len(self.numbers)) for row in record.rows), np.int64)
            for record in records
        ]
        self.places: dict[int, np.ndarray] = {}
        for numbers, record, offset in zip(media, records, self.offsets.tolist(), strict=False):
            pairs = offset + np.arange(len(record.rows) * len(record.views)).reshape(-1, len(record.views))
            for column, view in enumerate(record.views):
                if view not in self.places:
                    self.places[view] = np.full(len(self.numbers), NONE, np.int64)
                self.places[view][numbers] = pairs[:, column]

    def views_of(self, media: np.ndarray | slice = slice(None)) -> tuple[int, ...]:
        """The views that all these media [default: all] have, in order."""
        chosen = {view: places[media] for view, places in sorted(self.places.items())}
        return tuple(view for view, places in chosen.items() if len(places) and (places != NONE).all())


class FeatureReader:
    """Rows by number; `rows_of` gives the numbers of digests."""

    def __init__(
        self, objects: Objects, records: Sequence[Record], spec: FeatureSpec, *, memory: int | None = None
    ) -> None:
        """`memory` (bytes) [default: half of what is free] is the most that is read rather than mapped.

        Raises CacheError when a block is missing or damaged.
        """
        self._objects, self._spec = objects, spec
        self._index = RowIndex(records)
        self.views_of = self._index.views_of
        most = _MEMORY_SHARE * psutil.virtual_memory().available if memory is None else memory
        if sum(record.bytes for record in records) <= most:
            self._flat: np.ndarray | None = self._read(records)
        else:
            self._flat, self._mapped = None, [self._map(record) for record in records]

    @property
    def digests(self) -> list[str]:
        """The media that have rows; the position is the row's number."""
        return list(self._index.numbers)

    def rows_of(self, digests: Sequence[str | None]) -> np.ndarray:
        """Row numbers (len(digests),) int64. Raises CacheError when one has no row."""
        rows = [self._index.numbers.get(digest or "", NONE) for digest in digests]
        if NONE in rows:
            raise CacheError(f"{rows.count(NONE)} media have no row in the cache", hint="run epalm extract")
        return np.asarray(rows, np.int64)

    def gather(
        self, rows: np.ndarray, *, view: int | np.ndarray = 0, layers: Sequence[int] | slice | None = None
    ) -> np.ndarray:
        """Features (len(rows), L, T, D) in the stored dtype.

        `view` is one for all rows or one for each; `layers` are positions among the stored ones. Raises CacheError
        when a row has no such view.
        """
        if isinstance(view, int):
            stored = self._index.places.get(view)
            places = np.full(len(rows), NONE) if stored is None else stored[rows]
        else:
            places = np.full(len(rows), NONE)
            for one in self._index.places.keys() & set(view.tolist()):
                places[view == one] = self._index.places[one][rows[view == one]]
        if (places == NONE).any():
            raise CacheError("a row has no such view in the cache", hint="run epalm extract with more --views")
        values = self._gather_mapped(places) if self._flat is None else self._flat[places]
        return values if layers is None else values[:, layers]

    def _gather_mapped(self, places: np.ndarray) -> np.ndarray:
        values = np.empty((len(places), *self._spec.row_shape), self._spec.stored_dtype)
        owners = np.searchsorted(self._index.offsets, places, side="right") - 1
        within = places - self._index.offsets[owners]
        # Row by row: random rows lie in as many blocks, and sorting them out costs more than it saves.
        for place, (block, row) in enumerate(zip(owners.tolist(), within.tolist(), strict=True)):
            values[place] = self._mapped[block][row]
        return values

    def _read(self, records: Sequence[Record]) -> np.ndarray:
        offsets = self._index.offsets
        flat = np.empty((int(offsets[-1]), *self._spec.row_shape), self._spec.stored_dtype)

        def fill(block: int) -> None:
            require_fit(records[block], self._spec)
            read_values(self._objects, records[block], flat[offsets[block] : offsets[block + 1]])

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(fill, range(len(records))):
                pass
        return flat

    def _map(self, record: Record) -> np.ndarray:
        require_fit(record, self._spec)
        require_size(self._objects, record)
        shape, path = (record.shape[0] * record.shape[1], *record.shape[2:]), self._objects.path(record.chunk)
        # np.memmap itself indexes slowly.
        if path is not None:
            values = np.asarray(np.memmap(path, dtype=record.dtype, mode="r", shape=shape))
        else:
            data = self._objects.read(record.chunk)
            try:
                with tempfile.TemporaryFile() as copy:  # which has no name: it goes when it is not mapped any more
                    copy.write(data)
                    copy.flush()
                    values = np.asarray(np.memmap(copy, dtype=record.dtype, mode="r", shape=shape))
            except OSError as error:
                hint = "set TMPDIR to a folder with room for the feature set, or pull it to a local cache"
                where = f"{self._objects.where}/{record.chunk}"
                raise CacheError(f"{where} cannot be copied to {tempfile.gettempdir()}: {error}", hint=hint) from error
        require_values(values, record)
        return values


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
        """See `FeatureSet.to_dask`."""
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
            read = delayed(partial(_read_pairs, self._objects, record, self._stored))()
            blocks.append(da.from_delayed(read, shape, dtype=np.float32))
        pairs, views = da.concatenate(blocks)[:, self._layers], []
        for places in self._places:
            whole = bool((np.diff(places) == 1).all())  # then nothing is copied
            views.append(pairs[int(places[0]) : int(places[-1]) + 1] if whole else pairs[places])
        array: da.Array = da.stack(views, axis=1)
        return array


def _read_pairs(objects: Objects, record: Record, spec: FeatureSpec) -> np.ndarray:
    """A block's values for each (row, view) pair, in float32."""
    require_fit(record, spec)
    return read_values(objects, record).reshape(-1, *spec.row_shape).astype(np.float32)
