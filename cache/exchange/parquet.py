"""A block in Parquet, for other programs too: a table row is one view of one medium.

Columns: `digest`, SHA-256 of the medium's bytes in hex; `view`; `features`, a list of L · T · D numbers in the stored
dtype. The schema's metadata hold `shape` ([L, T, D]) as JSON. Letters: R media, V views, L layers, T tokens, D hidden
size.
"""

import json
from typing import Any

import numpy as np

from epalm.cache.blocks import Record, damaged
from epalm.errors import UsageError


def _schema(record: Record) -> Any:
    """Of a record's block. Raises UsageError without pyarrow."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError("pyarrow is not installed", hint="pip install 'epalm[parquet]'") from error
    row = record.shape[2:]
    number = pa.field("element", pa.from_numpy_dtype(np.dtype(record.dtype)), nullable=False)
    columns = {"digest": pa.string(), "view": pa.int32(), "features": pa.list_(number, int(np.prod(row)))}
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, metadata={"shape": json.dumps(list(row))})


def encode_block(record: Record, values: np.ndarray) -> bytes:
    """A block's values (R, V, L, T, D) as one Parquet file of R · V rows, its only row group."""
    schema = _schema(record)
    import pyarrow as pa
    from pyarrow import parquet

    digests = [row for row in record.rows for _ in record.views]
    views = np.tile(np.array(record.views, np.int32), len(record.rows))
    features = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field("features").type)
    table, out = pa.table([digests, views, features], schema=schema), pa.BufferOutputStream()
    # Features do not compress, and a dictionary of them would be a second copy.
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": ["digest", "view"]}
    parquet.write_table(table, out, row_group_size=len(table), **plain)
    return bytes(out.getvalue())


def decode_block(record: Record, data: bytes) -> np.ndarray:
    """The values (R, V, L, T, D) that `encode_block` was given; their checksum is left to be held against the record.

    Raises CacheError for a file of another form, or of other rows, views or dtype than the record's.
    """
    schema = _schema(record)
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
