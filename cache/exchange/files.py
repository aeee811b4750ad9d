"""Feature sets to and from one file: `.h5` goes both ways, `.npz` and `.parquet` are for other programs.

A file is there whole or not at all; what is imported is checked to the last value before anything is written.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epalm.cache.exchange.claims import require_digests
from epalm.cache.exchange.hdf5 import open_hdf5, write_hdf5
from epalm.cache.exchange.tables import write_npz, write_parquet
from epalm.cache.exchange.transfer import add_names, missing_parts, require_room
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import read_manifests
from epalm.cache.objects.durable import draft_of
from epalm.cache.store import Cache
from epalm.console import progress
from epalm.errors import CacheError, UsageError

_FORMS = {".h5": write_hdf5, ".hdf5": write_hdf5, ".npz": write_npz, ".parquet": write_parquet}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote; `left_out` media lack one of the views."""

    file: str
    set: str
    media: int
    views: tuple[int, ...]
    layers: tuple[int, ...]
    bytes: int
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import took in; `there` media were in the set already, in all of the file's views."""

    set: str
    media: int
    there: int
    views: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return asdict(self)


def export_set(
    features: FeatureSet, path: Path, *, layers: Sequence[int] | None = None, views: Sequence[int] | None = None
) -> Exported:
    """Write the rows of a set to a file whose ending says the form, replacing what is there; see `RowTable`.

    Raises:
        UsageError: another ending, no folder for the file, layers or views that are not there.
        CacheError: a damaged block, no rows, or a disk that refuses; no file is written then.
    """
    write = _FORMS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path} is of no form that is written", hint=f"let it end in {', '.join(_FORMS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be a file", hint="give a file in a folder that is there")
    rows = features.table(layers=layers, views=views)
    require_digests(rows.digests, features.where)
    require_room(rows.bytes, shutil.disk_usage(path.parent).free, str(path.parent))
    manifests, recorded = read_manifests(features.objects), features.recorded
    try:
        with draft_of(path) as draft, progress(f"export {features.name}", len(rows.digests), "media") as advance:
            write(draft, rows, recorded, manifests, advance)
    except BlockingIOError as error:
        raise CacheError(f"another process is writing {path}", hint="wait for it, or choose another name") from error
    except OSError as error:
        raise CacheError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="free space or rights, or choose another folder",
        ) from error
    return Exported(
        str(path), rows.spec.name, len(rows.digests), rows.views, rows.spec.layers, rows.bytes, rows.left_out
    )


def import_set(cache: Cache, path: Path) -> Imported:
    """Take an HDF5 file of `export_set` into the set that it names, rows that are there already left out.

    Raises:
        CacheError: the file is not what an export writes, and nothing was written; or the cache cannot be written.
    """
    with open_hdf5(path) as file:
        existing = cache.existing(file.spec)
        held = {view: existing.rows(view) if existing else set[str]() for view in file.views}
        new = sum(not all(digest in rows for rows in held.values()) for digest in file.digests)
        require_room(file.bytes // len(file.digests) * new, cache.objects.free_bytes(), cache.where)
        with progress(f"check {path.name}", len(file.digests), "media") as advance:
            for digests, _ in file:
                advance(len(digests))
        features = cache.feature_set(file.spec, recorded=existing.recorded if existing else file.recorded)
        with progress(f"import {features.name}", len(file.digests), "media") as advance:
            for digests, values in file:
                for rows, views, part in missing_parts(digests, file.views, values, held):
                    features.write_block(rows, part, views, made={"recorded": file.recorded})
                advance(len(digests))
        add_names(features, file.manifests)
        return Imported(features.name, new, len(file.digests) - new, file.views)
