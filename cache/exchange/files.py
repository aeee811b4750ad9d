"""Feature sets to and from one HDF5 file.

A file is there whole or not at all; what is imported is checked to the last value before anything is written.
Letters: N media, V views, L layers, T tokens, D hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epalm.cache.exchange.claims import checked
from epalm.cache.exchange.hdf5 import open_hdf5, write_hdf5
from epalm.cache.exchange.transfer import ROOM, add_names
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import read_manifests
from epalm.cache.objects.durable import draft_of, free_bytes, require_room
from epalm.cache.store import Cache
from epalm.console import progress
from epalm.errors import CacheError, UsageError


def export_set(
    features: FeatureSet, path: Path, *, layers: Sequence[int] | None = None, views: Sequence[int] | None = None
) -> dict[str, Any]:
    """Write the rows of a set to an HDF5 file, replacing what is there; see `RowTable`.

    Gives the name of what the file holds as `set`, how many `media` in which `views` and `layers`, their `bytes`, and
    how many media are `left_out` as they lack one of the views.

    Raises:
        UsageError: another ending, no folder for the file, layers or views that are not there.
        CacheError: a damaged block, no rows, or a disk that refuses; no file is written then.
    """
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.parent.is_dir():
        hint = "name an .h5 file in a folder that is there; epalm cache push SET parquet://FOLDER writes Parquet"
        raise UsageError(f"{path} cannot be written", hint=hint)
    rows = features.table(layers=layers, views=views)
    manifests, recorded = read_manifests(features.objects), features.recorded
    checked(features.where, features.spec.to_json(), recorded, manifests, rows.digests)
    require_room(rows.bytes, free_bytes(path.parent), path.parent, ROOM)
    try:
        with draft_of(path) as draft, progress(f"export {features.name}", len(rows.digests), "media") as advance:
            write_hdf5(draft, rows, recorded, manifests, advance)
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
