"""The commit record of a block: what has none does not exist.

Letters: R rows, V views, L layers, T tokens, D hidden size.
"""

import builtins
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

RECORDS, BLOCKS = "records", "blocks"
METADATA = "zarr.json"
_FORMAT = 2  # of records; the arrays of 1, which epalm 0.1 wrote, have no token axis: theirs is one token
_REPAIR = "epalm cache verify lists all damage; epalm cache verify --repair restores or drops it"
_FIELDS = ("rows", "views", "shape")


class DamageError(CacheError):
    """A block or its record is not what was written: no fault of the way to it."""


@dataclass(frozen=True)
class Record:
    """One committed block. What has no record does not exist.

    `block` names the content (a digest of rows and views), `folder` is where it lies, `rows` are media digests in
    order, `checksum` is xxh3-128 (hex) of the decoded bytes, `written` says who, when and with which libraries.
    """

    block: str
    folder: str
    rows: tuple[str, ...]
    views: tuple[int, ...]
    shape: tuple[int, int, int, int, int]
    dtype: str
    bytes: int
    checksum: str
    written: Mapping[str, Any]
    format: int = _FORMAT

    @staticmethod
    def key(block: str) -> str:
        """Where the record of a block lies."""
        return f"{RECORDS}/{block}.json"

    @property
    def chunk(self) -> str:
        """Where the one chunk of the block's array lies."""
        return f"{BLOCKS}/{self.folder}/{chunk_name(len(self.stored_shape))}"

    @property
    def metadata(self) -> str:
        """Where the description of the block's array lies."""
        return f"{BLOCKS}/{self.folder}/{METADATA}"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the block's array as zarr sees it."""
        return self.shape if self.format > 1 else (*self.shape[:3], self.shape[4])

    @property
    def time(self) -> float | None:
        """When it was written (Unix time in seconds), as far as the record says."""
        said = self.written.get("time")
        return float(said) if isinstance(said, int | float) else None

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What the extraction said of itself: library versions and the choice of encoder, as far as it did."""
        said = self.written.get("recorded")
        return said if isinstance(said, dict) else {}

    @property
    def versions(self) -> dict[str, str]:
        """The library versions among these."""
        return {name: str(version) for name, version in sorted(self.recorded.items()) if name != "encoder"}

    def to_bytes(self) -> builtins.bytes:
        """As the record's object holds it."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: builtins.bytes, where: str, block: str) -> "Record":
        """The record of a block. Raises DamageError when it is damaged, or another block's."""
        try:
            value = json.loads(data)
            fields = {"format": 1, **value, **{key: tuple(value[key]) for key in _FIELDS}}
            if fields["format"] == 1:
                fields["shape"] = (*fields["shape"][:3], 1, *fields["shape"][3:])
            record = Record(**fields)
            fits = record.shape[:2] == (len(record.rows), len(record.views)) and len(record.shape) == 5
            fits = fits and isinstance(record.written, dict) and record.format in (1, _FORMAT)
            size = np.dtype(record.dtype).itemsize * int(np.prod(record.shape, dtype=np.int64))
            inside = record.folder not in ("", ".", "..") and "/" not in record.folder and "\\" not in record.folder
            # A digest that differs by one bit would give the features of one medium to another.
            named = block == record.block == block_id(record.rows, record.views) and isinstance(record.written, dict)
        except (TypeError, KeyError, ValueError) as error:
            raise DamageError(f"{where} is no commit record: {error}", hint=_REPAIR) from error
        if not (fits and size == record.bytes and inside and named):
            raise DamageError(f"{where} is no commit record: its fields contradict each other", hint=_REPAIR)
        return record


def block_id(rows: Sequence[str], views: Sequence[int]) -> str:
    """The name of a block: a digest of which rows and views it holds, 16 hex digits."""
    return digest_json([list(rows), list(views)])[:16]


@dataclass(frozen=True, slots=True)
class Fault:
    """One block that is not as it should be: what about it, and its record where that is whole.

    `damaged` is false when the storage would not give it, which may pass.
    """

    block: str
    error: str
    record: Record | None
    damaged: bool = True

    @staticmethod
    def of(block: str, error: CacheError, record: Record | None) -> "Fault":
        """What an error says of a block."""
        return Fault(block, error.message, record, isinstance(error, DamageError | MissingObjectError))


def read_record(objects: Objects, block: str) -> Record:
    """A block's record. Raises CacheError when it is missing or damaged."""
    key = Record.key(block)
    return Record.from_bytes(objects.read(key), f"{objects.where}/{key}", block)


def damaged(record: Record, fault: str) -> DamageError:
    """The one error for a block that is not what its record says."""
    return DamageError(f"block {record.block} is damaged: {fault}", hint=_REPAIR)


def require_fit(record: Record, spec: FeatureSpec) -> None:
    """Raise CacheError unless a record is of a set's layers, tokens, hidden size and dtype."""
    if record.shape[2:] != spec.row_shape or record.dtype != spec.stored_dtype:
        raise damaged(record, "its record has another shape or dtype than the feature set")


def missing_views(
    digests: Sequence[str], views: Sequence[int], held: Mapping[int, Collection[str]]
) -> dict[tuple[int, ...], list[int]]:
    """Views that are missing → the positions of the digests that lack just these; `held` is view → digests."""
    parts: dict[tuple[int, ...], list[int]] = {}
    for place, digest in enumerate(digests):
        missing = tuple(view for view in views if digest not in held.get(view, ()))
        if missing:
            parts.setdefault(missing, []).append(place)
    return parts


def chunk_name(dimensions: int) -> str:
    """The name of an array's one chunk."""
    return "c" + ".0" * dimensions
