"""A block of rows: a Zarr v3 array of one uncompressed chunk, and its commit record. What has no record does not exist.

Letters: R rows, V views, L layers, T tokens, D hidden size. An uncompressed chunk object is the array's bytes
with four of crc32c behind them, so it can be read and mapped without zarr.
"""

import contextlib
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xxhash
from pydantic import TypeAdapter

from epalm.cache import fields
from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

RECORDS, BLOCKS = "records", "blocks"
METADATA = "zarr.json"
_FORMAT = 2  # of records; the arrays of 1, which epalm 0.1 wrote, have no token axis: theirs is one token
CRC_BYTES = 4
_PIECE = 1 << 18  # values looked at together: they stay in the CPU's cache
_DIMENSIONS = ("row", "view", "layer", "token", "hidden")
_REPAIR = "epalm cache verify lists all damage; epalm cache verify --repair restores or drops it"


class DamageError(CacheError):
    """A block or its record is not what was written: no fault of the way to it."""


@dataclass(frozen=True)
class Record:
    """One committed block.

    `block` names the content (a digest of rows and views), `folder` is where it lies, `rows` are media digests in
    order, `checksum` is xxh3-128 (hex) of the decoded bytes, `written` says who, when and with which libraries.
    """

    __pydantic_config__ = fields.NO_OTHERS

    block: str
    folder: fields.Folder
    rows: fields.Rows
    views: fields.Numbers
    shape: fields.Shape
    dtype: fields.Dtype
    bytes: fields.Bytes
    checksum: fields.Checksum
    written: Mapping[str, Any]
    format: fields.Format = _FORMAT

    @staticmethod
    def key(block: str) -> str:
        """Where the record of a block lies."""
        return f"{RECORDS}/{block}.json"

    @property
    def chunk(self) -> str:
        """Where the one chunk of the block's array lies."""
        return f"{BLOCKS}/{self.folder}/c{'.0' * len(self.stored_shape)}"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the block's array as zarr sees it."""
        return self.shape if self.format > 1 else (*self.shape[:3], self.shape[4])

    @property
    def time(self) -> float | None:
        """When it was written (Unix time in seconds), as far as the record says and a calendar has it."""
        time = self.written.get("time")
        return float(time) if isinstance(time, int | float) and 0 <= time < 1 << 33 else None

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What the extraction said of itself: library versions and the choice of encoder, as far as it did."""
        recorded = self.written.get("recorded")
        return recorded if isinstance(recorded, dict) else {}

    @property
    def versions(self) -> dict[str, str]:
        """The library versions among these."""
        return {name: str(version) for name, version in sorted(self.recorded.items()) if name != "encoder"}


_RECORD = TypeAdapter(Record)


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
    """A block's record. Raises CacheError when it is missing, damaged or another block's."""
    key = Record.key(block)
    try:
        value = {"format": 1, **json.loads(objects.read(key))}
        if value["format"] == 1:
            value["shape"] = (*value["shape"][:3], 1, *value["shape"][3:])
        record = _RECORD.validate_python(value)
        if not (
            # A digest that differs by one bit would give the features of one medium to another.
            block == record.block == block_id(record.rows, record.views)
            and record.shape[:2] == (len(record.rows), len(record.views))
            and math.prod(record.shape) * np.dtype(record.dtype).itemsize == record.bytes
        ):
            raise ValueError("its fields contradict each other")
    except fields.NOT_AS_WRITTEN as error:
        fault = f"{objects.where}/{key} is no commit record: {fields.fault_in_words(error)}"
        raise DamageError(fault, hint=_REPAIR) from error
    return record


def block_id(rows: Sequence[str], views: Sequence[int]) -> str:
    """The name of a block: a digest of which rows and views it holds, 16 hex digits."""
    return digest_json([list(rows), list(views)])[:16]


def damaged(record: Record, fault: str) -> DamageError:
    """The one error for a block that is not what its record says."""
    return DamageError(f"block {record.block} is damaged: {fault}", hint=_REPAIR)


def require_fit(record: Record, spec: FeatureSpec) -> None:
    """Raise CacheError unless a record is of a set's layers, tokens, hidden size and dtype."""
    if record.shape[2:] != spec.row_shape or record.dtype != spec.stored_dtype:
        raise damaged(record, "its record has another shape or dtype than the feature set")


def missing_parts(
    digests: Sequence[str], views: Sequence[int], values: np.ndarray, held: Mapping[int, Collection[str]]
) -> Iterator[tuple[list[str], tuple[int, ...], np.ndarray]]:
    """What of some rows is not `held` (view → digests), as (digests, views, values), by the views that they lack."""
    by_views: dict[tuple[int, ...], list[int]] = {}
    for position, digest in enumerate(digests):
        if missing := tuple(view for view in views if digest not in held.get(view, ())):
            by_views.setdefault(missing, []).append(position)
    for missing, positions in by_views.items():
        whole = len(positions) == len(digests) and len(missing) == len(views)
        part = values if whole else values[np.ix_(positions, [views.index(view) for view in missing])]
        yield [digests[position] for position in positions], missing, part


def write_block(
    objects: Objects, rows: Sequence[str], views: Sequence[int], values: np.ndarray, made: Mapping[str, Any]
) -> Record | None:
    """Write `values` (R, V, L, T, D) and commit them; the record, or None when another writer was first.

    The folder's name is unique and the record comes last, so several writers of one block cannot mix.
    """
    name = block_id(rows, views)
    folder = f"{name}-{uuid.uuid4().hex[:8]}"
    values = np.ascontiguousarray(values)
    written = {"time": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **made}
    stored = values.shape, values.dtype.name, values.nbytes, checksum(values)
    record = Record(name, folder, tuple(rows), tuple(views), *stored, written)
    try:
        for key, data in _encode(values).items():
            objects.write(f"{BLOCKS}/{folder}/{key}", data)
    except CacheError:
        with contextlib.suppress(CacheError):  # what caused the first fault may keep this from working
            objects.delete_below(f"{BLOCKS}/{folder}")
        raise
    # When this fails the record may be there all the same: the block stays, and is swept up if nothing names it.
    first = objects.write_new(Record.key(name), json.dumps(asdict(record)).encode())
    # A store whose answer got lost may say "there already" of our own record.
    if not first and read_record(objects, name).folder != folder:
        objects.delete_below(f"{BLOCKS}/{folder}")
        return None
    return record


def read_block(objects: Objects, record: Record) -> np.ndarray:
    """A block's values (R, V, L, T, D), decoded by zarr with their crc32c and held against the record: slow, and sure.

    Raises CacheError when something is missing or is not what the record says.
    """
    import zarr
    from zarr.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    record = require_size(objects, record)
    folder, _, chunk = record.chunk.rpartition("/")
    stored = {name: objects.read(f"{folder}/{name}") for name in (chunk, METADATA)}
    try:
        held: dict[str, Any] = {name: Buffer.from_bytes(data) for name, data in stored.items()}
        values = np.asarray(zarr.open_array(MemoryStore(held), mode="r")[...])
    except Exception as error:  # zarr has no common error for a chunk or metadata it cannot read
        raise damaged(record, f"{record.folder} cannot be decoded: {error}") from error
    if values.shape != record.stored_shape or values.dtype.name != record.dtype:
        raise damaged(record, f"{record.folder} is {values.dtype} {values.shape}, its record says otherwise")
    require_values(values, record)
    return values.reshape(record.shape)


def read_values(objects: Objects, record: Record, out: np.ndarray | None = None) -> np.ndarray:
    """A block's values (R, V, L, T, D), straight from its chunk into `out` and held against the record: fast.

    What only zarr needs, its description and its crc32c, is for `read_block` to check. Raises as `read_block`.
    """
    record = require_size(objects, record)
    values = np.empty(record.shape, record.dtype) if out is None else out
    target: Any = values.reshape(-1).view(np.uint8)
    if objects.read_into(record.chunk, memoryview(target)) != record.bytes:
        raise damaged(record, f"{record.chunk} ended early")
    require_values(values, record)
    return values


def checksum(values: np.ndarray) -> str:
    """xxh3-128 (hex) of an array's bytes in C order."""
    return xxhash.xxh3_128_hexdigest(values.data if values.flags.c_contiguous else values.tobytes())


def require_size(objects: Objects, record: Record) -> Record:
    """The record; raises CacheError unless the chunk is there and as long as it says.

    Where the chunk is missing the record is read again, once: another process may have made the block again.
    """
    size = objects.size(record.chunk)
    if size is None:
        with contextlib.suppress(CacheError):
            record = read_record(objects, record.block)
            size = objects.size(record.chunk)
    expected = record.bytes + CRC_BYTES
    if size != expected:
        fault = "is missing" if size is None else f"has {size:,} bytes instead of {expected:,}"
        raise damaged(record, f"{record.chunk} {fault}")
    return record


def require_values(values: np.ndarray, record: Record) -> None:
    """Raise CacheError unless decoded values are those that were committed, and all of them numbers.

    Nothing commits an infinite value or one that is no number, but a checksum may cover it.
    """
    if checksum(values) != record.checksum:
        raise damaged(record, f"{record.chunk} has other bytes than were written")
    flat = values.reshape(-1)
    kind = np.dtype(f"i{values.itemsize}")
    signed, unsigned = flat.view(kind), flat.view(f"u{values.itemsize}")
    positive, negative = np.array([np.inf, -np.inf], values.dtype).view(unsigned.dtype)
    for start in range(0, len(flat), _PIECE):
        # As integers, infinity and what is no number lie beyond all numbers: many times faster than isfinite.
        piece = slice(start, start + _PIECE)
        if signed[piece].max() >= positive.view(kind) or unsigned[piece].max() >= negative:
            raise damaged(record, f"{record.chunk} holds values that are not numbers")


def _encode(values: np.ndarray) -> dict[str, bytes]:
    """The objects of a Zarr array of one chunk, by name; the chunk comes first, the description last."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    array = zarr.create_array(
        store=MemoryStore(held),
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        compressors=[Crc32cCodec()],
        fill_value=float("nan"),
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=[*_DIMENSIONS[: values.ndim - 1], _DIMENSIONS[-1]],
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return {key: held[key].to_bytes() for key in sorted(held)}
