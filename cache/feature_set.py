"""A feature set: committed blocks of rows by media digest, and the ledger of what could not be encoded.

Letters: R rows, V views, L layers, T tokens, D hidden size. What is stored is read through commit records and in no
other way.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.cache.blocks import (
    BLOCKS,
    RECORDS,
    DamageError,
    Fault,
    Record,
    missing_parts,
    read_block,
    read_record,
    require_fit,
    require_size,
    write_block,
)
from epalm.cache.fields import NOT_AS_WRITTEN, fault_in_words
from epalm.cache.manifest import Entry, Ledger, names_by_digest, read_manifests
from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.reader import FeatureReader
from epalm.cache.row_table import RowTable
from epalm.cache.spec import FeatureSpec
from epalm.console import Advance, silent
from epalm.errors import CacheError

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd

_AT_ONCE = 16  # records read side by side: an object store answers each after a while
_SUFFIX = ".json"


class FeatureSet:
    """One folder below the cache's `sets/`."""

    def __init__(self, objects: Objects, spec: FeatureSpec) -> None:
        self.objects, self.spec, self.name = objects, spec, spec.name
        self.where = objects.where
        self.ledger = Ledger(objects)
        self._records: dict[str, Record] = {}  # by block, as far as they are known: they never change
        self._rows: dict[int, set[str]] = {}  # view → media, of these records

    @staticmethod
    def load(objects: Objects, name: str) -> "FeatureSet":
        """The feature set in a folder. Raises CacheError when there is none that this version reads."""
        spec = FeatureSpec.from_json(read_json(objects, "spec.json"))
        if spec.name != name:  # the name holds the fingerprint: a changed spec would label rows wrongly
            hint = "move it away, then extract again"
            raise CacheError(f"{objects.where} is not the feature set of its name", hint=hint)
        return FeatureSet(objects, spec)

    @property
    def recorded(self) -> dict[str, Any]:
        """What the latest extraction said of itself: library versions and the choice of encoder."""
        value: dict[str, Any] = read_json(self.objects, "recorded.json")
        return value

    def prepare(self, recorded: Mapping[str, str]) -> None:
        """Create what is missing of the folder, and note what the extraction says of itself."""
        self.note(recorded)
        self.objects.keep("spec.json", self.spec.to_bytes())

    def note(self, recorded: Mapping[str, str]) -> None:
        """Keep what an extraction says of itself, in place of what an earlier one said."""
        self.objects.keep("recorded.json", (json.dumps({**recorded}, indent=2, sort_keys=True) + "\n").encode())

    def records(self) -> list[Record]:
        """Every commit record, in order of name. Raises CacheError when one is damaged."""
        names = self.block_names()
        if not self._records.keys() <= set(names):  # dropped, here or by another process
            self._records, self._rows = {}, {}
        if new := [name for name in names if name not in self._records]:
            with ThreadPoolExecutor(min(_AT_ONCE, len(new))) as pool:
                for record in pool.map(lambda name: read_record(self.objects, name), new):
                    self._add(record)
        return [self._records[name] for name in names]

    def block_names(self) -> list[str]:
        """Names of all committed blocks, damaged ones included."""
        return [name.removesuffix(_SUFFIX) for name in self.objects.names(RECORDS) if name.endswith(_SUFFIX)]

    def held(self) -> Mapping[int, Collection[str]]:
        """View → digests of all media that have a row of it, to look into now: it grows with what is committed."""
        self.records()
        return self._rows

    def rows(self, view: int = 0) -> set[str]:
        """Digests of all media that have a row of that view."""
        return set(self.held().get(view, ()))

    def views(self) -> tuple[int, ...]:
        """Every view that some row has."""
        return tuple(sorted(self.held()))

    def lost_blocks(self) -> list[Record]:
        """Committed blocks whose values are not there any more; by one listing, so that no block is read."""
        records = self.records()  # before the listing: a block is there before its record
        there = {f"{BLOCKS}/{one.key}" for one in self.objects.below(BLOCKS).walk() if one.bytes} if records else set()
        return [record for record in records if record.chunk not in there]

    def write_block(
        self,
        digests: Sequence[str],
        values: np.ndarray,
        views: Sequence[int] = (0,),
        *,
        made: Mapping[str, Any] | None = None,
    ) -> int:
        """Commit `values` (R, V, L, T, D), a row a digest; how many rows were not there already, and now are.

        What another process has committed meanwhile is left out, so that each row's view is stored once: rows that lack
        different views then become several blocks. `made` is what the records say of their making [default: what the
        latest extraction says of itself]. Raises CacheError; ValueError for values or digests that do not fit.
        """
        expected = (len(digests), len(views), *self.spec.row_shape)
        if values.shape != expected or values.dtype != np.dtype(self.spec.stored_dtype):
            raise ValueError(f"{values.dtype} {values.shape} is not {self.spec.stored_dtype} {expected}")
        if len(set(digests)) != len(digests) or not digests or list(views) != sorted(set(views)):
            raise ValueError("a block needs at least one digest, each once, and its views in order")
        if not np.isfinite(values).all():
            raise ValueError("a block cannot hold values that are not numbers")
        count = 0
        with self.objects.lock(RECORDS):
            self.records()
            for rows, missing, part in missing_parts(digests, views, values, self._rows):
                written = {"recorded": self.recorded} if made is None else made
                if record := write_block(self.objects, rows, missing, part, written):
                    self._add(record)
                    count += len(rows)
        return count

    def open(
        self, *, only: Collection[str] | None = None, wanted: FeatureSpec | None = None, mapped: bool = False
    ) -> FeatureReader:
        """A reader of the rows that are committed now, of the blocks of `only` these media [default: all].

        `wanted`: the rows of another spec, which this set serves. `mapped`: files are mapped even where memory would
        suffice, so that several processes have them in memory once.
        """
        records = self.records()
        if only is not None:
            media = set(only)
            records = [record for record in records if not media.isdisjoint(record.rows)]
        return FeatureReader(self.objects, records, self.spec, wanted=wanted, memory=0 if mapped else None)

    def frame(self) -> "pd.DataFrame":
        """A row for each medium of each block, in the order of blocks.

        Columns: `digest` of the medium's bytes; `names` that data sets give to it; `views` in this block; `block` and
        `row` in it; `written` (UTC), `host` and `device`; `versions` of libraries. Raises CacheError for a damaged
        record or manifest.
        """
        import pandas as pd

        records, names = self.records(), names_by_digest(read_manifests(self.objects))
        counts, digests = [len(record.rows) for record in records], [row for record in records for row in record.rows]
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

    def digests(self, *, views: Sequence[int] | None = None) -> list[str]:
        """The media (N,) of `to_dask`, in the order of its rows. Raises as `to_dask`."""
        return self.table(views=views).digests

    def to_dask(
        self, *, layers: Sequence[int] | None = None, views: Sequence[int] | None = None, tokens: str | None = None
    ) -> "da.Array":
        """All rows as a Dask array (N, V, L, T, D) of float32: sums of float16 overflow. One delayed read a block.

        `layers` are block numbers of the encoder [default: all stored], `views` [default: those that every medium
        has]; media that lack one of the views are left out. `tokens` [default: those stored] is a narrower rule, such
        as "pool:2x2", where the set holds all tokens. Raises UsageError for layers, views or tokens that the set does
        not hold, CacheError where there is no row or a record is damaged, and later for a damaged block.
        """
        return self.table(layers=layers, views=views, tokens=tokens).to_dask()

    def table(
        self, *, layers: Sequence[int] | None = None, views: Sequence[int] | None = None, tokens: str | None = None
    ) -> RowTable:
        """The rows of `to_dask`, to be read stretch by stretch. Raises as `to_dask`."""
        return RowTable(self.objects, self.records(), self.spec, layers, views, tokens)

    def bad_media(self) -> list[Entry]:
        """The ledger's errors that still count: neither their content nor what bears their name now has a row."""
        entries, rows = self.ledger.entries(), self.rows()
        named: dict[str, set[str]] = {}  # the contents that data sets have under a name
        for manifest in read_manifests(self.objects) if entries else ():
            for name, digest in manifest.digests.items():
                named.setdefault(name, set()).add(digest)
        replaced = {name for name, contents in named.items() if contents <= rows}
        return [entry for entry in entries if entry.digest not in rows and entry.media not in replaced]

    def warned_media(self) -> list[Entry]:
        """The ledger's warnings about contents that have a row."""
        rows = self.rows()
        return [entry for entry in self.ledger.entries(warning=True) if entry.digest in rows]

    def count_warned(self, digests: Iterable[str]) -> int:
        """How many of these have a row and a warning."""
        warned = {entry.digest for entry in self.warned_media()}
        return sum(digest in warned for digest in digests)

    def verify(self) -> list[Fault]:
        """Read every block through zarr, with its crc32c, and hold it against its record; the faults found."""
        records, faults = self.sound_records()
        return faults + self.damaged_blocks(records)

    def sound_records(self, *, sizes: bool = False) -> tuple[list[Record], list[Fault]]:
        """The records that are whole and of this set, and the faults of the others.

        With `sizes`, the others are also those whose values are not as long as they say.
        """

        def look(name: str) -> Record | Fault:
            record = None
            try:
                record = read_record(self.objects, name)
                require_fit(record, self.spec)
                if sizes:
                    require_size(self.objects, record)
            except CacheError as error:
                return Fault.of(name, error, record)
            return record

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            looked = list(pool.map(look, self.block_names()))
        return [one for one in looked if isinstance(one, Record)], [one for one in looked if isinstance(one, Fault)]

    def damaged_blocks(self, records: Iterable[Record], advance: Advance = silent) -> list[Fault]:
        """The faults of these records' blocks; `advance` is called after each."""
        faults = []
        for record in records:
            try:
                read_block(self.objects, record)
            except CacheError as error:
                faults.append(Fault.of(record.block, error, record))
            advance()
        return faults

    def drop(self, block: str, record: Record | None) -> bool:
        """Take a block's record away, then its folder: its rows are missing from now on, and can be made again.

        False where `record` (None: a damaged one) is not its record any more: others have dropped or replaced it.
        """
        with self.objects.lock(RECORDS):  # a folder without a record may be one that is just being written
            try:
                there: Record | None = read_record(self.objects, block)
            except MissingObjectError:
                return False
            except DamageError:
                there = None
            if there != record:
                return False
            self.objects.delete(Record.key(block))
            for folder in self.objects.names(BLOCKS):
                if folder.startswith(f"{block}-"):
                    self.objects.delete_below(f"{BLOCKS}/{folder}")
        return True

    def _add(self, record: Record) -> None:
        self._records[record.block] = record
        for view in record.views:
            self._rows.setdefault(view, set()).update(record.rows)


def read_json(objects: Objects, key: str) -> Any:
    """A JSON object's value. Raises CacheError when it is missing, unreadable or no JSON."""
    try:
        return json.loads(objects.read(key))
    except NOT_AS_WRITTEN as error:
        hint = "epalm cache verify says what is whole"
        raise CacheError(f"{objects.where}/{key} cannot be read: {fault_in_words(error)}", hint=hint) from error
