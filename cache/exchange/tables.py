"""A feature set as a NumPy archive or a Parquet table, for other programs to read; neither is imported again.

Letters: N media, V views, L layers, T tokens, D hidden size. Written stretch by stretch.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epalm.cache.exchange.hdf5 import stretch_rows
from epalm.cache.manifest import Manifest, names_by_digest
from epalm.cache.row_table import RowTable
from epalm.errors import UsageError


def write_npz(
    path: Path,
    rows: RowTable,
    recorded: dict[str, Any],
    manifests: Sequence[Manifest],
    advance: Callable[[int], None],
) -> None:
    """Fill an archive that `numpy.load` opens without pickle; `advance` is told how many media are written.

    `features` (N, V, L, T, D), `digests` (N,), `views` (V,), `layers` (L,), and as JSON texts `spec`, `recorded` and
    `manifests` (data set → name → digest). Raises OSError, CacheError.
    """
    small = {
        "digests": rows.digests,
        "views": rows.views,
        "layers": rows.spec.layers,
        "spec": rows.spec.to_bytes().decode(),
        "recorded": json.dumps(recorded),
        "manifests": json.dumps({one.data: dict(one.digests) for one in manifests}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(_member("features", zipfile.ZIP_STORED), "w", force_zip64=True) as file:
            descr = np.lib.format.dtype_to_descr(np.dtype(rows.spec.stored_dtype))
            header = {"descr": descr, "fortran_order": False, "shape": rows.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for values in rows.stretches(stretch_rows(rows.bytes // len(rows.digests))):
                file.write(values.reshape(-1).view(np.uint8).data)
                advance(len(values))
        for name, value in small.items():
            with archive.open(_member(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(value), allow_pickle=False)


def write_parquet(
    path: Path,
    rows: RowTable,
    recorded: dict[str, Any],
    manifests: Sequence[Manifest],
    advance: Callable[[int], None],
) -> None:
    """Fill a table of a row a medium; `advance` is told how many are written.

    Columns: `digest`; `names`, those that the manifests give it; `features`, a list of V · L · T · D numbers.
    The schema's metadata hold `shape` ([V, L, T, D]), `views`, `spec` and `recorded` as JSON.

    Raises:
        UsageError: pyarrow is not installed.
        OSError, CacheError.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("pyarrow is not installed", hint="pip install 'epalm[parquet]'") from error
    row = rows.shape[1:]
    number = pa.from_numpy_dtype(np.dtype(rows.spec.stored_dtype))
    metadata = {
        "shape": json.dumps(row),
        "views": json.dumps(rows.views),
        "spec": rows.spec.to_bytes(),
        "recorded": json.dumps(recorded),
    }
    numbers = pa.list_(pa.field("element", number, nullable=False), int(np.prod(row)))
    columns = {"digest": pa.string(), "names": pa.list_(pa.string()), "features": numbers}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()], metadata=metadata)
    names = {
        digest: sorted(name.encode("utf-8", "backslashreplace").decode() for name in found)
        for digest, found in names_by_digest(manifests).items()
    }
    start = 0
    # Features do not compress, and a dictionary of them would be a second copy.
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": ["digest"]}
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for values in rows.stretches(stretch_rows(rows.bytes // len(rows.digests))):
            digests = rows.digests[start : start + len(values)]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=numbers)
            table = pa.table([digests, [names.get(digest, []) for digest in digests], flat], schema=schema)
            writer.write_table(table, row_group_size=len(values))
            start += len(values)
            advance(len(values))


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    """Without the time of writing: equal content, equal bytes."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = compression
    info.external_attr = 0o644 << 16
    return info
