"""A block on disk: a Zarr v3 array of one uncompressed chunk, and the commit record that makes it count.

Letters: R rows, V views, L layers, D width. An uncompressed chunk file is the array's bytes with four of crc32c
behind them, so it can be read and mapped without zarr.
"""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from epalm.cache.durable import fsync_directory, fsync_tree, link_first_wins, read_json
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

_CRC_BYTES = 4


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
    shape: tuple[int, int, int, int]
    dtype: str
    bytes: int
    checksum: str
    written: Mapping[str, Any]

    @staticmethod
    def read(path: Path) -> "Record":
        """The record in a file. Raises CacheError when it is damaged."""
        value = read_json(path)
        try:
            record = Record(**{**value, **{key: tuple(value[key]) for key in ("rows", "views", "shape")}})
            fits = record.shape[:2] == (len(record.rows), len(record.views)) and len(record.shape) == 4
            inside = Path(record.folder).name == record.folder
            # A digest that differs by one bit would give the features of one medium to another.
            named = path.stem == record.block == block_id(record.rows, record.views)
        except (TypeError, KeyError, ValueError) as error:
            raise CacheError(f"{path} is no commit record: {error}") from error
        if not (fits and inside and named):
            raise CacheError(f"{path} is no commit record: its fields contradict each other")
        return record


def block_id(rows: Sequence[str], views: Sequence[int]) -> str:
    """The name of a block: a digest of which rows and views it holds, 16 hex digits."""
    return digest_json([list(rows), list(views)])[:16]


def write_block(
    blocks: Path,
    records: Path,
    rows: Sequence[str],
    views: Sequence[int],
    values: np.ndarray,
    made: Mapping[str, Any],
) -> bool:
    """Write `values` (R, V, L, D) and commit them; whether this call did, or another writer was first.

    The folder's name is unique and the record is linked last, so several writers of one block cannot mix.
    """
    name = block_id(rows, views)
    folder = f"{name}-{uuid.uuid4().hex[:8]}"
    draft = blocks / f".{folder}"
    values = np.ascontiguousarray(values)
    try:
        _write_array(draft, values)
        fsync_tree(draft)
        draft.rename(blocks / folder)
        fsync_directory(blocks)
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
        first = link_first_wins(records / f"{name}.json", json.dumps(asdict(record)).encode())
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(blocks / folder, ignore_errors=True)
        raise CacheError(
            f"the cache cannot be written: {error}",
            hint="free space or rights, then run the same command again",
        ) from error
    if not first:
        shutil.rmtree(blocks / folder, ignore_errors=True)
    return first


def checksum(values: np.ndarray) -> str:
    """xxh3-128 (hex) of an array's bytes in C order."""
    return xxhash.xxh3_128_hexdigest(values.data if values.flags.c_contiguous else values.tobytes())


def chunk_file(blocks: Path, record: Record) -> Path:
    """The one chunk of the block's array."""
    return blocks / record.folder / "c" / "0" / "0" / "0" / "0"


def require_size(path: Path, record: Record) -> None:
    """Raise CacheError unless the chunk file is there and as long as its record says."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise damaged(record, f"{path} is missing") from error
    if size != record.bytes + _CRC_BYTES:
        raise damaged(record, f"{path} has {size:,} bytes instead of {record.bytes + _CRC_BYTES:,}")


def require_checksum(values: np.ndarray, path: Path, record: Record) -> None:
    """Raise CacheError unless the decoded values are those that were committed."""
    if checksum(values) != record.checksum:
        raise damaged(record, f"{path} has other bytes than were written")


def damaged(record: Record, fault: str) -> CacheError:
    """The one error for a block that is not what its record says."""
    return CacheError(
        f"block {record.block} is damaged: {fault}",
        hint="epalm cache verify lists every damaged block; epalm cache verify --repair drops them, "
        "and epalm extract makes them again",
    )


def _write_array(folder: Path, values: np.ndarray) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec

    array = zarr.create_array(
        store=folder,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        compressors=[Crc32cCodec()],
        fill_value=float("nan"),
        dimension_names=("row", "view", "layer", "width"),
        config={"write_empty_chunks": True},
    )
    array[...] = values
