"""Where each medium's rows lie among the blocks of a feature set, and all of them as one array.

Letters: N media, V views, L layers, T tokens, D hidden size. Readers, exports and Dask arrays share this index.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.cache.blocks import read_values
from epalm.cache.manifest import Manifest, names_by_digest
from epalm.cache.objects.base import Objects
from epalm.cache.record import Record, require_fit
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError, UsageError

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd

NONE = -1
_DTYPES = {"row": "int64", "written": "datetime64[ns, UTC]"}  # of a frame; its other columns hold Python objects


class RowIndex:
    """Media by number. `places` has for each view (2, N): block and row in it of each medium, or NONE."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.numbers: dict[str, int] = {}
        self._stored = sum(len(record.rows) * len(record.views) for record in records)
        media = [
            np.fromiter((self.numbers.setdefault(row, len(self.numbers)) for row in record.rows), np.int64)
            for record in records
        ]
        self.places: dict[int, np.ndarray] = {}
        for block, record in enumerate(records):
            for view in record.views:
                if view not in self.places:
                    self.places[view] = np.full((2, len(self.numbers)), NONE)
                self.places[view][0][media[block]] = block
                self.places[view][1][media[block]] = np.arange(len(record.rows))

    @property
    def repeated(self) -> int:
        """How many rows, each view counted, are stored more than once."""
        return self._stored - sum(int((blocks != NONE).sum()) for blocks, _ in self.places.values())

    def views_of(self, media: np.ndarray | slice = slice(None)) -> tuple[int, ...]:
        """The views that all these media [default: all] have, in order."""
        chosen = {view: blocks[media] for view, (blocks, _) in sorted(self.places.items())}
        return tuple(view for view, blocks in chosen.items() if len(blocks) and (blocks != NONE).all())


class RowTable:
    """Some layers and views of all media that have these views, in an order in which each block is read once.

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
            CacheError: a record is damaged, or there is no row.
        """
        stored = spec.layers
        chosen = stored if layers is None else tuple(sorted(set(layers)))
        if unknown := [layer for layer in chosen if layer not in stored]:
            raise UsageError(f"{spec.name} does not hold layers {unknown}; it has {list(stored)}")
        self._objects, self._records, self._stored = objects, records, spec
        self._layers = None if chosen == stored else [stored.index(layer) for layer in chosen]
        self.spec = replace(spec, layers=chosen)
        if not self._records:
            raise CacheError(f"{spec.name} holds no row yet", hint="run epalm extract")
        index = RowIndex(self._records)
        self.views = _choose_views(spec.name, index, views)
        blocks, rows = np.array([index.places[view] for view in self.views]).transpose(1, 0, 2)  # (V, N) each
        order = np.flatnonzero((blocks != NONE).all(axis=0))
        if not len(order):
            raise UsageError(f"no medium of {spec.name} has all of the views {list(self.views)}")
        order = order[np.lexsort([rows[0][order], *blocks[::-1, order]])]
        names = list(index.numbers)
        self.digests = [names[number] for number in order]
        self.left_out = len(names) - len(order)
        self._blocks, self._rows = blocks[:, order], rows[:, order]
        changes = np.flatnonzero((np.diff(self._blocks, axis=1) != 0).any(axis=0)) + 1
        self._bounds = [0, *changes.tolist(), len(order)]  # of groups: their views lie in the same blocks

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
        held: dict[int, np.ndarray] = {}
        buffer = np.empty((min(rows, len(self.digests)), *self.shape[1:]), self.spec.stored_dtype)
        filled = 0
        for group in range(len(self._bounds) - 1):
            wanted = np.unique(self._blocks[:, self._bounds[group]]).tolist()
            held = {block: held[block] if block in held else self._read(block) for block in wanted}
            values = self._assemble(group, [held[block] for block in wanted], self.spec.stored_dtype)
            while len(values):
                part = values[: len(buffer) - filled]
                buffer[filled : filled + len(part)] = part
                values, filled = values[len(part) :], filled + len(part)
                if filled == len(buffer):
                    yield buffer
                    filled = 0
        if filled:
            yield buffer[:filled]

    def to_dask(self) -> "da.Array":
        """The values as float32: each block is one delayed read, checked against its record."""
        import dask.array as da
        from dask.delayed import delayed

        read, assemble = delayed(self._read), delayed(self._assemble)
        reads: dict[int, Any] = {}
        chunks = []
        for group, (start, stop) in enumerate(zip(self._bounds, self._bounds[1:], strict=False)):
            wanted = np.unique(self._blocks[:, start]).tolist()
            for block in wanted:
                if block not in reads:
                    reads[block] = read(block)
            value = assemble(group, [reads[block] for block in wanted], "float32")
            chunks.append(da.from_delayed(value, (stop - start, *self.shape[1:]), dtype=np.float32))
        array: da.Array = da.concatenate(chunks)
        return array

    def _read(self, block: int) -> np.ndarray:
        require_fit(self._records[block], self._stored)
        return read_values(self._objects, self._records[block])

    def _assemble(self, group: int, values: Sequence[np.ndarray], dtype: str) -> np.ndarray:
        """A group's rows; `values` are those of its blocks, in order of their numbers."""
        media = slice(self._bounds[group], self._bounds[group + 1])
        wanted = np.unique(self._blocks[:, media.start]).tolist()
        found = np.empty((media.stop - media.start, *self.shape[1:]), dtype)
        for position, view in enumerate(self.views):
            block = int(self._blocks[position, media.start])
            rows = self._rows[position, media]
            whole = slice(int(rows[0]), int(rows[-1]) + 1) if (np.diff(rows) == 1).all() else rows
            row = values[wanted.index(block)][whole, self._records[block].views.index(view)]
            found[:, position] = row if self._layers is None else row[:, self._layers]
        return found


def _choose_views(name: str, index: RowIndex, views: Sequence[int] | None) -> tuple[int, ...]:
    if views is None:
        common = index.views_of()
        if not common:
            raise UsageError(f"no view is there for every medium of {name}", hint="choose with --views 0")
        return common
    chosen = tuple(sorted(set(views)))
    if not chosen or any(view not in index.places for view in chosen):
        unknown = [view for view in chosen if view not in index.places]
        raise UsageError(f"{name} does not hold views {unknown}; it has {sorted(index.places)}")
    return chosen


def rows_frame(records: Sequence[Record], manifests: Iterable[Manifest]) -> "pd.DataFrame":
    """A row for each medium of each block, in the order of blocks; see `FeatureSet.frame`."""
    import pandas as pd

    counts = [len(record.rows) for record in records]
    times = np.array([record.time for record in records], float)

    def repeated(values: Iterable[Any]) -> np.ndarray:
        """One value for each block, given to all of its rows."""
        column = np.empty(len(records), object)
        column[:] = list(values)
        return column.repeat(counts)

    digests = np.array(list(chain.from_iterable(record.rows for record in records)), object)
    names = names_by_digest(manifests)
    columns = {
        "digest": digests,
        "names": [names.get(digest, ()) for digest in digests],
        "views": repeated(record.views for record in records),
        "block": repeated(record.block for record in records),
        "row": np.concatenate([np.arange(count) for count in counts] or [np.arange(0)]),
        "written": pd.to_datetime(times, unit="s", utc=True).repeat(counts),
        "host": repeated(record.written.get("host") for record in records),
        "device": repeated(record.written.get("device") for record in records),
        "versions": repeated(record.versions for record in records),
    }
    # Texts stay Python's: converting a million of them would take as long as all the rest.
    return pd.DataFrame({name: pd.Series(column, dtype=_DTYPES.get(name, object)) for name, column in columns.items()})
