"""Rows in Parquet: a table row is one view of one medium.

Columns: `digest`, SHA-256 of the medium's bytes in hex; `view`; `features`, a list of L · T · D numbers in the stored
dtype. The schema's metadata hold `shape` ([L, T, D]) as JSON. Letters: R media, V views, L layers, T tokens, D hidden
size.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.cache.blocks import Record, damaged
from epalm.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

# Features do not compress, and a dictionary of them would be a second copy.
OPTIONS: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": ["digest", "view"]}


def row_schema(row: Sequence[int], dtype: str, more: Mapping[str, Any] | None = None, *, names: bool = False) -> Any:
    """The schema of rows of that shape (L, T, D); `more` is added to its metadata, `names` to its columns.

    Raises UsageError without pyarrow.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError("pyarrow is not installed", hint="pip install 'epalm[parquet]'") from error
    number = pa.field("element", pa.from_numpy_dtype(np.dtype(dtype)), nullable=False)
    columns = {"digest": pa.string(), "view": pa.int32()} | ({"names": pa.list_(pa.string())} if names else {})
    columns["features"] = pa.list_(number, int(np.prod(row)))
    metadata = {name: json.dumps(value) for name, value in {"shape": list(row), **(more or {})}.items()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()], metadata=metadata)


def row_table(
    schema: Any, digests: Sequence[str], views: Sequence[int], values: np.ndarray, names: Mapping[str, list[str]]
) -> "pa.Table":
    """Values (R, V, L, T, D) as a table of R · V rows; where the schema has `names`, those of each digest."""
    import pyarrow as pa

    each = [digest for digest in digests for _ in views]
    columns: list[Any] = [each, np.tile(np.array(views, np.int32), len(digests))]
    columns += [[names.get(digest, []) for digest in each]] if "names" in schema.names else []
    features = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field("features").type)
    return pa.table([*columns, features], schema=schema)


def encode_block(record: Record, values: np.ndarray) -> bytes:
    """A block as one Parquet file, its only row group."""
    import pyarrow as pa
    from pyarrow import parquet

    schema, out = row_schema(record.shape[2:], record.dtype), pa.BufferOutputStream()
    table = row_table(schema, record.rows, record.views, values, {})
    parquet.write_table(table, out, row_group_size=len(table), **OPTIONS)
    return bytes(out.getvalue())


def decode_block(record: Record, data: bytes) -> np.ndarray:
    """The values (R, V, L, T, D) that `encode_block` was given; their checksum is left to be held against the record.

    Raises CacheError for a file of another form, or of other rows, views or dtype than the record's.
    """
    schema = row_schema(record.shape[2:], record.dtype)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        # Before anything is allocated: a stranger's file may claim any size.
        if file.metadata.num_rows != len(record.rows) * len(record.views) or not file.schema_arrow.equals(schema):
            raise ValueError("it has other columns or another number of rows")
        table = file.read()
        if any(column.null_count for column in table.columns):
            raise ValueError("values are missing")
        rows = [(row, view) for row in record.rows for view in record.views]
        if list(zip(table["digest"].to_pylist(), table["view"].to_pylist(), strict=True)) != rows:
            raise ValueError("its rows are of other media or views")
        values: np.ndarray = table["features"].combine_chunks().flatten().to_numpy().reshape(record.shape)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(record, f"its Parquet file is not what was published: {error}") from error
    return values
