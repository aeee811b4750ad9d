"""A feature set: committed blocks of rows by media digest, and the ledger of what could not be encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.cache.blocks import Record, block_id, chunk_file, require_checksum, require_size, write_block
from epalm.cache.durable import link_first_wins, read_json, write_atomically
from epalm.cache.ledger import Ledger
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError

if TYPE_CHECKING:
    from epalm.cache.reader import FeatureReader

_VIEW_0 = (0,)
_ZARR_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}\n'


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it should be: which block (or file), and what about it."""

    block: str
    error: str
    record: Path


class FeatureSet:
    """One folder below the cache's `sets/`. Rows are read through commit records and in no other way."""

    def __init__(self, path: Path, spec: FeatureSpec) -> None:
        self.path, self.spec, self.name = path, spec, path.name
        self.ledger = Ledger(path / "ledger.jsonl")
        self._blocks, self._records = path / "blocks", path / "records"
        self._known: dict[Path, Record] = {}  # records never change once they are there

    @staticmethod
    def load(path: Path) -> "FeatureSet":
        """The feature set in a folder. Raises CacheError when there is none that this version reads."""
        spec = FeatureSpec.from_json(read_json(path / "spec.json"))
        if spec.name != path.name:  # the name holds the fingerprint: a changed spec would label rows wrongly
            raise CacheError(f"{path} is not the feature set of its name", hint="move it away, then extract again")
        return FeatureSet(path, spec)

    @property
    def recorded(self) -> dict[str, Any]:
        """What the latest extraction said of itself: library versions and the choice of encoder."""
        value: dict[str, Any] = read_json(self.path / "recorded.json")
        return value

    def prepare(self, recorded: Mapping[str, str]) -> None:
        """Create what is missing of the folder, and note what the extraction says of itself."""
        try:
            self._records.mkdir(parents=True, exist_ok=True)
            self._blocks.mkdir(exist_ok=True)
            for folder in (self.path, self._blocks):  # by link: zarr's own way fails when two processes race
                link_first_wins(folder / "zarr.json", _ZARR_GROUP)
            write_atomically(self.path / "spec.json", self.spec.to_bytes())
            write_atomically(self.path / "recorded.json", _json(recorded))
        except OSError as error:
            raise CacheError(f"the cache cannot be written: {error}", hint="give another --cache") from error

    def records(self) -> list[Record]:
        """Every commit record, in order of name. Raises CacheError when one is damaged."""
        found = []
        for path in sorted(self._records.glob("[!.]*.json")):
            if path not in self._known:
                self._known[path] = Record.read(path)
            found.append(self._known[path])
        return found

    def rows(self) -> set[str]:
        """Digests of all media that have a row."""
        return {digest for record in self.records() for digest in record.rows}

    def write_block(self, digests: Sequence[str], values: np.ndarray) -> bool:
        """Commit `values` (rows, 1 view, layers, width), one row a digest; False when they were there already.

        Raises:
            ValueError: values of another shape or dtype than the set's, or a digest twice.
            CacheError: the disk refused.
        """
        expected = (len(digests), 1, len(self.spec.layers), self.spec.width)
        if values.shape != expected or values.dtype != np.dtype(self.spec.stored_dtype):
            raise ValueError(f"{values.dtype} {values.shape} is not {self.spec.stored_dtype} {expected}")
        if len(set(digests)) != len(digests) or not digests:
            raise ValueError("a block needs at least one digest, and each once")
        if (self._records / f"{block_id(digests, _VIEW_0)}.json").exists():
            return False
        made = {"recorded": self.recorded}
        return write_block(self._blocks, self._records, digests, _VIEW_0, values, made)

    def open(self, *, verify: bool = True) -> "FeatureReader":
        """A reader of all rows that are committed now; `verify` checks every block once."""
        from epalm.cache.reader import FeatureReader

        return FeatureReader(self._blocks, self.records(), self.spec, verify=verify)

    def verify(self) -> list[Fault]:
        """Read every block through zarr, with its crc32c, and hold it against its record; the faults found."""
        faults = []
        for path in sorted(self._records.glob("[!.]*.json")):
            try:
                self._verify_block(Record.read(path))
            except CacheError as error:
                faults.append(Fault(path.stem, error.message, path))
        return faults

    def drop(self, fault: Fault) -> None:
        """Take a damaged block's record away: its rows are missing from now on, and can be made again."""
        fault.record.unlink(missing_ok=True)
        self._known.clear()

    def blocks(self) -> int:
        """How many blocks are committed, damaged ones included."""
        return len(list(self._records.glob("[!.]*.json")))

    def bytes(self) -> int:
        """Of all committed values."""
        return sum(record.bytes for record in self.records())

    def _verify_block(self, record: Record) -> None:
        import zarr

        path = chunk_file(self._blocks, record)
        require_size(path, record)
        try:
            values = np.asarray(zarr.open_array(self._blocks / record.folder, mode="r")[...])
        except Exception as error:  # zarr has no common error for a chunk or metadata it cannot read
            raise CacheError(f"{path} cannot be decoded: {error}") from error
        if values.shape != record.shape or values.dtype.name != record.dtype:
            raise CacheError(f"{path.parents[4]} is {values.dtype} {values.shape}, its record says otherwise")
        require_checksum(values, path, record)


def _json(value: Mapping[str, Any]) -> bytes:
    import json

    return (json.dumps(dict(value), indent=2, sort_keys=True) + "\n").encode()
