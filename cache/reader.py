"""Rows out of a feature set by number, fast.

Letters: N media, V views, L layers, T tokens, D hidden size. Rows that fit in memory are read when the set is opened.
Others are mapped, block by block, when they are asked for, or ahead of that. Whatever is read is checked before.
Gathers with numpy: torch's index_select on several CPU threads is many times slower.
"""

import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from epalm.cache.blocks import Record, read_values, require_fit, require_size, require_values
from epalm.cache.memory import available_memory
from epalm.cache.objects.base import Objects
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError

NONE = -1
_MEMORY_SHARE = 0.5  # of what is free: more than this is mapped
_AT_ONCE = 8  # blocks read side by side
_MAPPED_AT_ONCE = 2  # of local files: nearly in sequence
Blocks = Callable[[int], np.ndarray]  # number of a block → its values (rows × views, L, T, D)


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
    """Rows by number; `rows_of` gives the numbers of digests. `fits`: whether all of them fit in memory."""

    def __init__(
        self,
        objects: Objects,
        records: Sequence[Record],
        spec: FeatureSpec,
        *,
        wanted: FeatureSpec | None = None,
        memory: int | None = None,
    ) -> None:
        """Rows of `wanted` [default: `spec`], which those stored, of `spec`, serve.

        `memory` (bytes) [default: half of what is free] is the most that is read now, rather than mapped later. Raises
        CacheError when a block is missing or, as far as it is read now, damaged.
        """
        self._objects, self._records, self._spec, self._wanted = objects, records, spec, wanted or spec
        self._pooled = self._wanted.rule != spec.rule
        self._layers = slice(None) if self._pooled else spec.places_of(self._wanted.layers)
        self._index = RowIndex(records)
        self.views_of = self._index.views_of
        self.block_bytes = np.array([record.bytes for record in records], np.int64)
        self.blocks = [record.block for record in records]  # their names
        size, most = int(self._index.offsets[-1]) * self._wanted.row_bytes, int(_MEMORY_SHARE * available_memory())
        self.fits = size <= most
        self._flat = self._read() if size <= (most if memory is None else memory) else None
        self._kept: dict[int, np.ndarray] = {}  # blocks that were asked for without being read ahead
        if self._flat is None:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for _ in pool.map(partial(require_size, objects), records):
                    pass

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

    def gather(self, rows: np.ndarray, *, view: int | np.ndarray = 0, blocks: Blocks | None = None) -> np.ndarray:
        """Features (len(rows), L, T, D) in the stored dtype.

        `view` is one for all rows or one for each; `blocks` are those of `ahead`. Raises CacheError when a row has no
        such view, or a block that is mapped now is damaged.
        """
        places = self._places(rows, view)
        if self._flat is not None:
            gathered: np.ndarray = self._flat[places]
            return gathered
        values = np.empty((len(places), *self._wanted.row_shape), self._wanted.stored_dtype)
        owners, mapped = self._owners(places), blocks or self._block
        within = places - self._index.offsets[owners]
        # Row by row: random rows lie in as many blocks, and sorting them out costs more than it saves.
        for place, (block, row) in enumerate(zip(owners.tolist(), within.tolist(), strict=True)):
            values[place] = mapped(block)[row, self._layers]
        return values

    def blocks_of(self, rows: np.ndarray, *, view: int | np.ndarray = 0) -> np.ndarray:
        """The number (len(rows),) of the block that each row's view lies in. Raises as `gather`."""
        return self._owners(self._places(rows, view))

    def ahead(self, parts: Iterable[np.ndarray]) -> Generator[Blocks]:
        """For each part, the numbers of some blocks, what gives these; those of the next part are read meanwhile.

        A block is mapped as long as its part is in use. Close what is not gone through to its end.
        """
        if self._flat is not None:
            yield from (self._block for _ in parts)
            return
        local = all(self._objects.path(record.chunk) is not None for record in self._records[:1])
        before: dict[int, Future[np.ndarray]] = {}
        ready: Blocks | None = None
        with ThreadPoolExecutor(_MAPPED_AT_ONCE if local else _AT_ONCE, "blocks") as pool:
            try:
                for part in parts:
                    before = {
                        block: before.get(block) or pool.submit(self._map, self._records[block])
                        for block in part.tolist()
                    }
                    if ready:
                        yield ready
                    ready = partial(_result, before)
                if ready:
                    yield ready
            except GeneratorExit:
                pool.shutdown(cancel_futures=True)
                raise

    def _places(self, rows: np.ndarray, view: int | np.ndarray) -> np.ndarray:
        if isinstance(view, int):
            stored = self._index.places.get(view)
            places = np.full(len(rows), NONE) if stored is None else stored[rows]
        else:
            places = np.full(len(rows), NONE)
            for one in self._index.places.keys() & set(view.tolist()):
                places[view == one] = self._index.places[one][rows[view == one]]
        if (places == NONE).any():
            raise CacheError("a row has no such view in the cache", hint="run epalm extract with more --views")
        return places

    def _owners(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._index.offsets, places, side="right") - 1

    def _block(self, block: int) -> np.ndarray:
        if block not in self._kept:  # two threads may map it at once
            self._kept[block] = self._map(self._records[block])
        return self._kept[block]

    def _read(self) -> np.ndarray:
        offsets = self._index.offsets
        flat = np.empty((int(offsets[-1]), *self._wanted.row_shape), self._wanted.stored_dtype)

        def fill(block: int) -> None:
            record, part = self._records[block], flat[offsets[block] : offsets[block + 1]]
            require_fit(record, self._spec)
            if self._wanted == self._spec:
                read_values(self._objects, record, part)
            else:
                values = read_values(self._objects, record).reshape(-1, *self._spec.row_shape)
                part[...] = self._spec.narrow(values, self._wanted)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(fill, range(len(self._records))):
                pass
        return flat

    def _map(self, record: Record) -> np.ndarray:
        """A block's values (pairs, L, T, D): pooled, or as they are stored, with all layers."""
        require_fit(record, self._spec)
        record = require_size(self._objects, record)
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
        return self._spec.narrow(values, self._wanted) if self._pooled else values


def _result(blocks: dict[int, "Future[np.ndarray]"], block: int) -> np.ndarray:
    return blocks[block].result()
