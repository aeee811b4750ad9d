"""Rows out of a feature set, fast: whole blocks in memory, or mapped where memory is short.

Letters: N media, V views, L layers, D width. Checks each block's checksum once per open. Gathers with numpy: torch's
index_select on several CPU threads is many times slower.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epalm.cache.blocks import Record, chunk_file, damaged, require_checksum, require_size
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError

_MEMORY_SHARE = 0.5  # of what is free: more than this is mapped


class FeatureReader:
    """Rows by number; `rows_of` gives the numbers of digests."""

    def __init__(
        self,
        blocks: Path,
        records: Sequence[Record],
        spec: FeatureSpec,
        *,
        verify: bool,
        memory: int | None = None,
    ) -> None:
        """`memory` (bytes) [default: half of what is free] is the most that is read rather than mapped."""
        self._spec = spec
        self._number: dict[str, int] = {}
        self._offsets: list[int] = []  # of each block in the flat sequence of (row, view) pairs
        places: dict[int, dict[int, int]] = {}  # view → row number → place in that sequence
        total = 0
        for record in records:
            self._offsets.append(total)
            for position, digest in enumerate(record.rows):
                number = self._number.setdefault(digest, len(self._number))
                for column, view in enumerate(record.views):
                    places.setdefault(view, {}).setdefault(number, total + position * len(record.views) + column)
            total += len(record.rows) * len(record.views)
        self._places = [
            np.fromiter((places[view][row] for row in range(len(self._number))), np.int64)
            for view in range(len(places))
            if len(places.get(view, ())) == len(self._number)
        ]
        if sum(record.bytes for record in records) <= (_free_memory() if memory is None else memory):
            self._flat: np.ndarray | None = self._read(blocks, records, total, verify)
        else:
            self._flat, self._mapped = None, [self._map(blocks, record, verify) for record in records]

    @property
    def digests(self) -> list[str]:
        """The media that have rows; the position is the row's number."""
        return list(self._number)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, V, L, D); V counts the views that every row has."""
        return len(self._number), len(self._places), len(self._spec.layers), self._spec.width

    def row_of(self, digest: str) -> int | None:
        """The number of a medium's row, None when it has none."""
        return self._number.get(digest)

    def rows_of(self, digests: Sequence[str | None]) -> np.ndarray:
        """Row numbers (len(digests),) int64. Raises CacheError when one has no row."""
        rows = [self._number.get(digest, -1) if digest else -1 for digest in digests]
        if -1 in rows:
            raise CacheError(f"{rows.count(-1)} media have no row in the cache", hint="run epalm extract")
        return np.asarray(rows, np.int64)

    def gather(
        self,
        rows: np.ndarray,
        *,
        view: int = 0,
        layers: Sequence[int] | slice | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Features (len(rows), L, D) in the stored dtype; `layers` are positions among the stored ones."""
        places = self._places[view][rows]
        values = self._gather_mapped(places) if self._flat is None else self._flat[places]
        if layers is not None:
            values = values[:, layers]
        if out is None:
            return values
        out[...] = values
        return out

    def _gather_mapped(self, places: np.ndarray) -> np.ndarray:
        values = np.empty((len(places), *self.shape[2:]), self._spec.stored_dtype)
        owners = np.searchsorted(self._offsets, places, side="right") - 1
        for block in np.unique(owners):
            mine = owners == block
            values[mine] = self._mapped[block][places[mine] - self._offsets[block]]
        return values

    def _read(self, blocks: Path, records: Sequence[Record], total: int, verify: bool) -> np.ndarray:
        flat = np.empty((total, len(self._spec.layers), self._spec.width), self._spec.stored_dtype)
        for offset, record in zip(self._offsets, records, strict=True):
            path = chunk_file(blocks, record)
            self._require_fit(record)
            require_size(path, record)
            values = flat[offset : offset + record.shape[0] * record.shape[1]]
            target: Any = values.reshape(-1).view(np.uint8)
            with path.open("rb") as file:
                if file.readinto(target) != record.bytes:
                    raise damaged(record, f"{path} ended early")
            if verify:
                require_checksum(values, path, record)
        return flat

    def _map(self, blocks: Path, record: Record, verify: bool) -> np.ndarray:
        path = chunk_file(blocks, record)
        self._require_fit(record)
        require_size(path, record)
        shape = (record.shape[0] * record.shape[1], *record.shape[2:])
        values: np.ndarray = np.memmap(path, dtype=record.dtype, mode="r", shape=shape)
        if verify:
            require_checksum(values, path, record)
        return values

    def _require_fit(self, record: Record) -> None:
        if record.shape[2:] != self.shape[2:] or record.dtype != self._spec.stored_dtype:
            raise damaged(record, "its record has another shape or dtype than the feature set")


def _free_memory() -> int:
    """Bytes that may be used for rows."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return int(free * _MEMORY_SHARE)
