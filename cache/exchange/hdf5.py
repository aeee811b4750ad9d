"""The HDF5 form of a feature set, which can be imported again, also where a stranger made the file.

Members: `features` (N, V, L, T, D); `digests` (N,), SHA-256 in hex; `spec.json`, `recorded.json` and
`manifests/*.jsonl` as in the set's folder, as arrays of bytes; and `about.json`: format, name, views, xxh3-128 of every
other member (of the features one for each stretch of rows), and a digest of itself. Version 1, of epalm 0.1, has no
token axis. Letters: N media, V views, L layers, T tokens, D hidden size.

HDF5 can point out of the file (external links and storage, virtual data sets), run plugins (filters), hold Python
objects, and claim any size. Nothing of that is followed, run, unpickled or allocated: a member is a hard link to a
contiguous array of one plain type whose bytes lie inside the file.
"""

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5o, h5s, h5t
from pydantic import TypeAdapter

from epalm.cache.blocks import checksum
from epalm.cache.exchange import claims
from epalm.cache.fields import Numbers
from epalm.cache.manifest import Manifest
from epalm.cache.row_table import RowTable
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

_STRETCH = 512  # rows that have one checksum, as many as a block has
_STRETCH_BYTES = 256 << 20  # of rows so wide that fewer have one
_LARGEST_ROW = 4 << 30  # bytes
_MEMBERS = ["about.json", "digests", "features", "manifests", "recorded.json", "spec.json"]
_DIGEST, _BYTE = np.dtype("S64"), np.dtype("u1")
_AGAIN = "copy the file again, or export it again"


def _stretch_rows(row_bytes: int) -> int:
    return max(1, min(_STRETCH, _STRETCH_BYTES // row_bytes))


def write_hdf5(
    path: Path,
    rows: RowTable,
    recorded: dict[str, Any],
    manifests: Sequence[Manifest],
    advance: Callable[[int], None],
) -> None:
    """Fill a file; `advance` is called with the number of media read. Raises OSError; CacheError for a damaged block.

    HDF5 does not survive a full disk, so it only lays the file out, in memory: rows and checksums follow by offset.
    """
    texts = {"spec.json": rows.spec.to_bytes(), "recorded.json": json.dumps(recorded, indent=2).encode()}
    texts |= {f"manifests/{number:04d}.jsonl": one.to_bytes() for number, one in enumerate(manifests)}
    members = {"digests": np.array(rows.digests, _DIGEST)}
    members |= {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    sums = {name: checksum(array) for name, array in members.items()}
    stretch = _stretch_rows(rows.bytes // len(rows.digests))
    about = {
        "format": "epalm feature set",
        "version": 2,
        "set": rows.spec.name,
        "fingerprint": rows.spec.fingerprint,
        "views": list(rows.views),
        "checksums": {**sums, "features": ["0" * 32] * -(-len(rows.digests) // stretch)},  # as long as they will be
    }
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.create_group("manifests")
        for name, array in members.items():
            file.create_dataset(name, data=array)
        about_at = file.create_dataset("about.json", data=np.frombuffer(_sealed(about), np.uint8)).id.get_offset()
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        settings.set_fill_time(h5d.FILL_TIME_NEVER)
        settings.set_obj_track_times(False)
        kind, space = h5t.py_create(np.dtype(rows.spec.stored_dtype)), h5s.create_simple(rows.shape)
        features_at = h5d.create(file.id, b"features", kind, space, settings).get_offset()
    checksums = []
    with path.open("r+b") as out:
        out.write(image.getbuffer())
        out.seek(features_at)
        for values in rows.stretches(stretch):
            checksums.append(checksum(values))
            out.write(values.reshape(-1).view(np.uint8).data)
            advance(len(values))
        out.seek(about_at)
        out.write(_sealed({**about, "checksums": {**sums, "features": checksums}}))


def _sealed(about: dict[str, Any]) -> bytes:
    return json.dumps({**about, "seal": digest_json(about)}, indent=2).encode()


@contextmanager
def open_hdf5(path: Path) -> Iterator["ExportedSet"]:
    """A file that `write_hdf5` may have written, all but its features checked. Raises CacheError."""
    if not path.is_file():  # a pipe would be waited for, a device read without end
        raise CacheError(f"{path} is no file")
    with claims.refusing(str(path)):
        file = h5py.File(path, "r", locking=False)
    with file:
        with claims.refusing(str(path)):
            exported = ExportedSet(file, path)
        yield exported


class ExportedSet:
    """What a file holds: `spec`, `recorded`, `views`, `digests`, `manifests`, and the features by iterating."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        """Raises CacheError, or what `claims.refusing` makes one, for whatever no export writes."""
        self.where, self._root, self._file_bytes = str(path), file["/"].id, path.stat().st_size
        if sorted(file["/"].keys()) != _MEMBERS:
            raise CacheError(f"{path} is no exported feature set", hint="epalm cache export SET FILE.h5 makes one")
        about = dict(json.loads(bytes(self._array("about.json", _BYTE, 1)[...])))
        seal = about.pop("seal", None)
        if about.get("version") not in (1, 2) or digest_json(about) != seal:
            raise CacheError(f"{path} is of no form that this version reads, or damaged", hint=_AGAIN)
        self._sums: dict[str, Any] = dict(about["checksums"])
        self.views = TypeAdapter(Numbers).validate_python(about["views"])
        spec, self.recorded = (json.loads(bytes(self._checked(f"{name}.json", _BYTE))) for name in ("spec", "recorded"))
        self.digests = [digest.decode("latin-1") for digest in self._checked("digests", _DIGEST).tolist()]
        names = [f"manifests/{name}" for name in sorted(map(bytes.decode, self._member("manifests")))]
        self.manifests = [Manifest.from_bytes(bytes(self._checked(name, _BYTE)), f"{path}:/{name}") for name in names]
        self.spec = claims.checked(self.where, spec, self.recorded, self.manifests, self.digests)
        if (self.spec.name, self.spec.fingerprint) != (about["set"], about["fingerprint"]):
            raise CacheError(f"{path} holds another feature set than it says: {self.spec.name}")
        self._row = (len(self.views), *self.spec.row_shape)
        stored = self._row if about["version"] > 1 else (*self._row[:2], self.spec.width)
        self._features = self._array("features", np.dtype(self.spec.stored_dtype), 1 + len(stored))
        row_bytes = math.prod(self._row) * self._features.dtype.itemsize
        if self._features.shape != (len(self.digests), *stored) or math.prod(stored) != math.prod(self._row):
            raise CacheError(f"{path} holds features {self._features.shape}, which is not what its description says")
        if row_bytes > _LARGEST_ROW:
            raise CacheError(f"{path} holds rows of {row_bytes:,} bytes; no encoder has such")
        self.bytes, self._step = len(self.digests) * row_bytes, _stretch_rows(row_bytes)
        sums = self._sums.get("features")
        if not isinstance(sums, list) or len(sums) != -(-len(self.digests) // self._step):
            raise CacheError(f"{path} does not hold a checksum for each stretch of its features")

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Digests (R,) and values (R, V, L, T, D) in order. Raises CacheError for other bytes than were exported."""
        for number, expected in enumerate(self._sums["features"]):
            stretch = slice(number * self._step, (number + 1) * self._step)
            with claims.refusing(self.where):
                values = np.asarray(self._features[stretch])
            rows = f"rows from {stretch.start:,} on"
            if checksum(values) != expected:
                raise CacheError(f"{self.where} is damaged: {rows} have other bytes than were exported", hint=_AGAIN)
            if not np.isfinite(values).all():
                raise CacheError(f"{self.where} holds values that are not numbers, in {rows}")
            yield self.digests[stretch], values.reshape(len(values), *self._row)

    def _checked(self, name: str, dtype: "np.dtype[Any]") -> np.ndarray:
        """All of a member, held against its checksum."""
        array = np.asarray(self._array(name, dtype, 1)[...])
        if checksum(array) != self._sums.get(name):
            raise CacheError(f"{self.where} is damaged: {name} is not what was exported", hint=_AGAIN)
        return array

    def _member(self, name: str) -> Any:
        """A member by its path, every link on the way a hard one. Raises CacheError."""
        member: Any = self._root
        for part in name.encode().split(b"/"):
            if member.links.get_info(part).type != h5l.TYPE_HARD:
                raise CacheError(f"{self.where}:/{name} is a link that leads elsewhere")
            member = h5o.open(member, part)
        return member

    def _array(self, name: str, dtype: "np.dtype[Any]", dimensions: int) -> h5py.Dataset:
        """A member of exactly that type and number of dimensions; nothing is read yet. Raises CacheError."""
        where, member = f"{self.where}:/{name}", self._member(name)
        if type(member) is not h5d.DatasetID:
            raise CacheError(f"{where} is no array")
        settings, space = member.get_create_plist(), member.get_space()
        plain = settings.get_layout() == h5d.CONTIGUOUS and not settings.get_nfilters()
        if not plain or settings.get_external_count():
            raise CacheError(f"{where} is virtual, filtered, in pieces or in another file; an export is none of these")
        simple = space.get_simple_extent_type() == h5s.SIMPLE and space.get_simple_extent_ndims() == dimensions
        if not simple or not member.get_type().equal(h5t.py_create(dtype)):
            raise CacheError(f"{where} is not of type {dtype.name} in {dimensions} dimensions")
        size = dtype.itemsize * math.prod(int(length) for length in space.get_simple_extent_dims())
        offset = member.get_offset()
        # Checked before anything is allocated. Storage that was never written would read as zeros.
        if member.get_storage_size() != size or offset is None or not 0 < offset <= self._file_bytes - size:
            raise CacheError(f"{where} claims {size:,} bytes that are not in the file")
        return h5py.Dataset(member)
