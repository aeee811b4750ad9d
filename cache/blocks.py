"""A block: a Zarr v3 array of one uncompressed chunk, which counts once its record is there.

Letters: R rows, V views, L layers, T tokens, D hidden size. An uncompressed chunk object is the array's bytes
with four of crc32c behind them, so it can be read and mapped without zarr.
"""

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from epalm.cache.objects.base import Objects
from epalm.cache.record import BLOCKS, METADATA, Record, block_id, chunk_name, damaged, read_record
from epalm.errors import CacheError

CRC_BYTES = 4
GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}\n'
GROUPS = (METADATA, f"{BLOCKS}/{METADATA}")  # the set, and its blocks
_PIECE = 1 << 18  # values looked at together: they stay in the CPU's cache
_DIMENSIONS = ("row", "view", "layer", "token", "hidden")


def make_groups(objects: Objects) -> None:
    """Describe the set and its blocks as Zarr groups, for other readers. By `write_new`, as zarr's own way races."""
    for key in GROUPS:
        if objects.size(key) is None:
            objects.write_new(key, GROUP)


def write_block(
    objects: Objects, rows: Sequence[str], views: Sequence[int], values: np.ndarray, made: Mapping[str, Any]
) -> Record | None:
    """Write `values` (R, V, L, T, D) and commit them; the record, or None when another writer was first.

    The folder's name is unique and the record comes last, so several writers of one block cannot mix.
    """
    name = block_id(rows, views)
    folder = f"{name}-{uuid.uuid4().hex[:8]}"
    values = np.ascontiguousarray(values)
    record = Record(
        block=name,
        folder=folder,
        rows=tuple(rows),
        views=tuple(views),
        shape=values.shape,
        dtype=values.dtype.name,
        bytes=values.nbytes,
        checksum=checksum(values),
        written={"time": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **made},
    )
    try:
        for key, data in _encode(values).items():
            objects.write(f"{BLOCKS}/{folder}/{key}", data)
    except CacheError:
        with contextlib.suppress(CacheError):  # what caused the first fault may keep this from working
            objects.delete_below(f"{BLOCKS}/{folder}")
        raise
    # When this fails the record may be there all the same: the block stays, and is swept up if nothing names it.
    first = objects.write_new(Record.key(name), record.to_bytes())
    # A store whose answer got lost may say "there already" of our own record.
    if not first and read_record(objects, name).folder != folder:
        objects.delete_below(f"{BLOCKS}/{folder}")
        return None
    return record


def read_block(objects: Objects, record: Record) -> np.ndarray:
    """A block's values (R, V, L, T, D), decoded by zarr with their crc32c and held against the record: slow, and sure.

    Raises:
        CacheError: something is missing or is not what the record says.
    """
    require_size(objects, record)
    chunk = objects.read(record.chunk)
    try:
        metadata = objects.read(record.metadata)
        values = _decode(metadata, chunk, len(record.stored_shape))
    except CacheError:
        raise
    except Exception as error:  # zarr has no common error for a chunk or metadata it cannot read
        raise damaged(record, f"{record.folder} cannot be decoded: {error}") from error
    if values.shape != record.stored_shape or values.dtype.name != record.dtype:
        raise damaged(record, f"{record.folder} is {values.dtype} {values.shape}, its record says otherwise")
    require_checksum(values, record)
    require_numbers(values, record)
    return values.reshape(record.shape)


def read_values(objects: Objects, record: Record) -> np.ndarray:
    """A block's values (R, V, L, T, D), straight from its chunk and held against the record's checksum: fast.

    What only zarr needs, its description and its crc32c, is for `read_block` to check.

    Raises:
        CacheError: something is missing or is not what the record says.
    """
    require_size(objects, record)
    values = np.empty(record.shape, record.dtype)
    fill_values(objects, record, values)
    require_checksum(values, record)
    require_numbers(values, record)
    return values


def fill_values(objects: Objects, record: Record, values: np.ndarray) -> None:
    """Put a block's values into an array of as many, unchecked. Raises CacheError when there are fewer."""
    target: Any = values.reshape(-1).view(np.uint8)
    if objects.read_into(record.chunk, memoryview(target)) != record.bytes:
        raise damaged(record, f"{record.chunk} ended early")


def checksum(values: np.ndarray) -> str:
    """xxh3-128 (hex) of an array's bytes in C order."""
    return xxhash.xxh3_128_hexdigest(values.data if values.flags.c_contiguous else values.tobytes())


def require_size(objects: Objects, record: Record) -> None:
    """Raise CacheError unless the chunk is there and as long as its record says."""
    size = objects.size(record.chunk)
    if size is None:
        raise damaged(record, f"{record.chunk} is missing")
    if size != record.bytes + CRC_BYTES:
        raise damaged(record, f"{record.chunk} has {size:,} bytes instead of {record.bytes + CRC_BYTES:,}")


def require_checksum(values: np.ndarray, record: Record) -> None:
    """Raise CacheError unless the decoded values are those that were committed."""
    if checksum(values) != record.checksum:
        raise damaged(record, f"{record.chunk} has other bytes than were written")


def require_numbers(values: np.ndarray, record: Record) -> None:
    """Raise CacheError where a value is infinite or no number: nothing commits one, but a checksum may cover it."""
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
    return {key: held[key].to_bytes() for key in (chunk_name(values.ndim), METADATA)}


def _decode(metadata: bytes, chunk: bytes, dimensions: int) -> np.ndarray:
    import zarr
    from zarr.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {METADATA: Buffer.from_bytes(metadata), chunk_name(dimensions): Buffer.from_bytes(chunk)}
    return np.asarray(zarr.open_array(MemoryStore(held), mode="r")[...])
