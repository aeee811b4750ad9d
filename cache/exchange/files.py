"""Feature sets to and from one file: `.h5` goes both ways, `.parquet` is for other programs.

A file is there whole or not at all; what is imported is checked to the last value before anything is written.
Letters: N media, V views, L layers, T tokens, D hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epalm.cache.exchange.claims import checked
from epalm.cache.exchange.hdf5 import Contents, open_hdf5, write_hdf5
from epalm.cache.exchange.parquet import OPTIONS, row_schema, row_table
from epalm.cache.exchange.transfer import ROOM, add_names
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import names_by_digest, read_manifests
from epalm.cache.objects.durable import draft_of, free_bytes, require_room
from epalm.cache.store import Cache
from epalm.console import progress
from epalm.errors import CacheError, UsageError


def export_set(
    features: FeatureSet, path: Path, *, layers: Sequence[int] | None = None, views: Sequence[int] | None = None
) -> dict[str, Any]:
    """Write the rows of a set to a file whose ending says the form, replacing what is there; see `RowTable`.

    Gives the name of what the file holds as `set`, how many `media` in which `views` and `layers`, their `bytes`, and
    how many media are `left_out` as they lack one of the views.

    Raises:
        UsageError: another ending, no folder for the file, layers or views that are not there.
        CacheError: a damaged block, no rows, or a disk that refuses; no file is written then.
    """
    write = _FORMS.get(path.suffix.lower())
    if write is None or not path.parent.is_dir():
        raise UsageError(
            f"{path} cannot be written", hint=f"name a file in a folder that is there: {', '.join(_FORMS)}"
        )
    rows = features.table(layers=layers, views=views)
    manifests, recorded = read_manifests(features.objects), features.recorded
    checked(features.where, features.spec.to_json(), recorded, manifests, rows.digests)
    require_room(rows.bytes, free_bytes(path.parent), path.parent, ROOM)
    try:
        with draft_of(path) as draft, progress(f"export {features.name}", len(rows.digests), "media") as advance:
            write(draft, Contents(rows, recorded, manifests, advance))
    except BlockingIOError as error:
        raise CacheError(f"another process is writing {path}", hint="wait for it, or choose another name") from error
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise CacheError(message, hint="free space or rights, or choose another folder") from error
    facts = {"file": str(path), "set": rows.spec.name, "media": len(rows.digests), "views": rows.views}
    return facts | {"layers": rows.spec.layers, "bytes": rows.bytes, "left_out": rows.left_out}


def import_set(cache: Cache, path: Path) -> dict[str, Any]:
    """Take an HDF5 file of `export_set` into the `set` that it names, in the file's `views`.

    `media` are new in it; those that are `there` already, in all of the views, are left out.

    Raises:
        CacheError: the file is not what an export writes, and nothing was written; or the cache cannot be written.
    """
    with open_hdf5(path) as file:
        existing, count = cache.existing(file.spec), len(file.digests)
        held = set[str].intersection(*(existing.rows(view) for view in file.views)) if existing else set[str]()
        new = sum(digest not in held for digest in file.digests)
        require_room(file.bytes // count * new, cache.objects.free_bytes(), cache.where, ROOM)
        with progress(f"check {path.name}", count, "media") as advance:
            for digests, _ in file:
                advance(len(digests))
        features = cache.feature_set(file.spec, recorded=existing.recorded if existing else file.recorded)
        with progress(f"import {features.name}", count, "media") as advance:
            step = file.spec.block_rows(len(file.views), count)
            for digests, values in file:
                for start in range(0, len(digests), step):
                    part = slice(start, start + step)
                    features.write_block(digests[part], values[part], file.views, made={"recorded": file.recorded})
                advance(len(digests))
        add_names(features, file.manifests)
        return {"set": features.name, "media": new, "there": count - new, "views": file.views}


def _write_parquet(path: Path, contents: Contents) -> None:
    """Fill a table as `epalm.cache.exchange.parquet` says; media come in order, each with its views.

    Beside these columns, `names` are those that the manifests give a medium; the schema's metadata also hold `views`,
    `spec` and `recorded` as JSON. Raises UsageError without pyarrow.
    """
    rows = contents.rows
    more = {"views": list(rows.views), "spec": rows.spec.to_json(), "recorded": contents.recorded}
    schema = row_schema(rows.spec.row_shape, rows.spec.stored_dtype, more, names=True)
    from pyarrow import parquet

    names = {
        digest: sorted(name.encode("utf-8", "backslashreplace").decode() for name in given)
        for digest, given in names_by_digest(contents.manifests).items()
    }
    start = 0
    with parquet.ParquetWriter(path, schema, **OPTIONS) as writer:
        for values in contents.stretches():
            table = row_table(schema, rows.digests[start : start + len(values)], rows.views, values, names)
            writer.write_table(table, row_group_size=len(table))
            start += len(values)


_FORMS = {".h5": write_hdf5, ".hdf5": write_hdf5, ".parquet": _write_parquet}
