"""Rows out of a feature set, fast: whole blocks in memory, or mapped where memory is short.

Letters: N media, V views, L layers, T tokens, D hidden size. Checks each block's checksum once per open.
Gathers with numpy: torch's index_select on several CPU threads is many times slower.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from epalm.cache.blocks import fill_values, require_checksum, require_numbers, require_size
from epalm.cache.objects.base import Objects
from epalm.cache.objects.spool import Spool
from epalm.cache.record import Record, require_fit
from epalm.cache.row_index import NONE, RowIndex
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError

_MEMORY_SHARE = 0.5  # of what is free: more than this is mapped
_AT_ONCE = 8  # blocks read side by side


class FeatureReader:
    """Rows by number; `rows_of` gives the numbers of digests."""

    def __init__(
        self,
        objects: Objects,
        records: Sequence[Record],
        spec: FeatureSpec,
        *,
        verify: bool,
        memory: int | None = None,
    ) -> None:
        """`memory` (bytes) [default: half of what is free] is the most that is read rather than mapped."""
        self._objects, self._spec, self._verify = objects, spec, verify
        self._spool = Spool(objects)
        self._offsets = np.zeros(len(records) + 1, np.int64)  # of each block in the sequence of (row, view) pairs
        np.cumsum([len(record.rows) * len(record.views) for record in records], out=self._offsets[1:])
        index = RowIndex(records)
        self._number, self.views_of = index.numbers, index.views_of
        self._places = {view: self._flat_places(view, places, records) for view, places in index.places.items()}
        if sum(record.bytes for record in records) <= (_free_memory() if memory is None else memory):
            self._flat: np.ndarray | None = self._read(records)
        else:
            self._flat, self._mapped = None, [self._map(record) for record in records]

    @property
    def digests(self) -> list[str]:
        """The media that have rows; the position is the row's number."""
        return list(self._number)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(N, V, L, T, D); V counts the views that every row has."""
        return len(self._number), len(self.views_of()), *self._spec.row_shape

    def row_of(self, digest: str) -> int | None:
        """The number of a medium's row, None when it has none."""
        return self._number.get(digest)

    def rows_of(self, digests: Sequence[str | None]) -> np.ndarray:
        """Row numbers (len(digests),) int64. Raises CacheError when one has no row."""
        rows = [self._number.get(digest, NONE) if digest else NONE for digest in digests]
        if NONE in rows:
            raise CacheError(f"{rows.count(NONE)} media have no row in the cache", hint="run epalm extract")
        return np.asarray(rows, np.int64)

    def has(self, row: int, *, view: int) -> bool:
        """Whether a row is there in that view."""
        places = self._places.get(view)
        return places is not None and bool(places[row] != NONE)

    def gather(
        self,
        rows: np.ndarray,
        *,
        view: int | np.ndarray = 0,
        layers: Sequence[int] | slice | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Features (len(rows), L, T, D) in the stored dtype.

        `view` is one for all rows or one for each; `layers` are positions among the stored ones.

        Raises:
            CacheError: a row has no such view.
        """
        places = self._find(rows, view)
        values = self._gather_mapped(places) if self._flat is None else self._flat[places]
        if layers is not None:
            values = values[:, layers]
        if out is None:
            return values
        out[...] = values
        return out

    def _flat_places(self, view: int, places: np.ndarray, records: Sequence[Record]) -> np.ndarray:
        """Where each medium's row of a view is in the sequence of (row, view) pairs of all blocks."""
        blocks, rows = places
        counts = np.array([len(record.views) for record in records])
        columns = np.array([record.views.index(view) if view in record.views else NONE for record in records])
        return np.where(blocks == NONE, NONE, self._offsets[blocks] + rows * counts[blocks] + columns[blocks])

    def _find(self, rows: np.ndarray, view: int | np.ndarray) -> np.ndarray:
        if isinstance(view, int):
            chosen = self._places.get(view)
            places = np.full(len(rows), NONE) if chosen is None else chosen[rows]
        else:
            places = np.full(len(rows), NONE, np.int64)
            for one in np.unique(view):
                mine = view == one
                places[mine] = self._find(rows[mine], int(one))
        if (places == NONE).any():
            raise CacheError("a row has no such view in the cache", hint="run epalm extract with more --views")
        return places

    def _gather_mapped(self, places: np.ndarray) -> np.ndarray:
        values = np.empty((len(places), *self._spec.row_shape), self._spec.stored_dtype)
        owners = np.searchsorted(self._offsets, places, side="right") - 1
        within = places - self._offsets[owners]
        # Row by row: random rows lie in as many blocks, and sorting them out costs more than it saves.
        for place, (block, row) in enumerate(zip(owners.tolist(), within.tolist(), strict=True)):
            values[place] = self._mapped[block][row]
        return values

    def _read(self, records: Sequence[Record]) -> np.ndarray:
        flat = np.empty((int(self._offsets[-1]), *self._spec.row_shape), self._spec.stored_dtype)

        def fill(block: int) -> None:
            record, values = records[block], flat[self._offsets[block] : self._offsets[block + 1]]
            require_fit(record, self._spec)
            require_size(self._objects, record)
            fill_values(self._objects, record, values)
            if self._verify:
                require_checksum(values, record)
                require_numbers(values, record)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(fill, range(len(records))):
                pass
        return flat

    def _map(self, record: Record) -> np.ndarray:
        require_fit(record, self._spec)
        require_size(self._objects, record)
        path = self._spool.path(record.chunk)
        shape = (record.shape[0] * record.shape[1], *record.shape[2:])
        values = np.asarray(np.memmap(path, dtype=record.dtype, mode="r", shape=shape))  # np.memmap indexes slowly
        if self._verify:
            require_checksum(values, record)
            require_numbers(values, record)
        return values


def _free_memory() -> int:
    """Bytes that may be used for rows."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return int(free * _MEMORY_SHARE)
