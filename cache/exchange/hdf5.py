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
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.cache.blocks import checksum
from epalm.cache.exchange import claims
from epalm.cache.manifest import Manifest
from epalm.cache.row_table import RowTable
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

if TYPE_CHECKING:
    import h5py

_STRETCH = 512  # rows that have one checksum, as many as a block has
_STRETCH_BYTES = 256 << 20  # of rows so wide that fewer have one
_LARGEST_ROW = _STRETCH_BYTES  # bytes of (V, L, T, D)
_FORMAT, _VERSION = "epalm feature set", 2
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MEMBERS = ["about.json", "digests", "features", "manifests", "recorded.json", "spec.json"]
_MOST_MEMBERS = 10_000
_MOST_VIEWS = 1 << 16
_DIGEST, _BYTE = np.dtype("S64"), np.dtype("u1")
_MAKE = "epalm cache export SET FILE.h5 makes one"
_AGAIN = "copy the file again, or export it again"
# h5py has no error of its own: a file that makes no sense may raise any of these.
_FAULTS = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError)


def stretch_rows(row_bytes: int) -> int:
    """How many rows of that many bytes each have one checksum."""
    return max(1, min(_STRETCH, _STRETCH_BYTES // row_bytes))


def write_hdf5(
    path: Path,
    rows: RowTable,
    recorded: dict[str, Any],
    manifests: Sequence[Manifest],
    advance: Callable[[int], None],
) -> None:
    """Fill a file; `advance` is told how many media are written. Raises OSError, CacheError.

    HDF5 does not survive a full disk, so it only lays the file out, in memory: rows and checksums follow by offset.
    """
    import h5py

    step = stretch_rows(rows.bytes // len(rows.digests))
    digests = np.array(rows.digests, _DIGEST)
    texts = {f"manifests/{number:04d}.jsonl": one.to_bytes() for number, one in enumerate(manifests)}
    texts |= {"spec.json": rows.spec.to_bytes(), "recorded.json": json.dumps(recorded, indent=2).encode()}
    sums = {name: checksum(np.frombuffer(text, np.uint8)) for name, text in texts.items()}
    blank = ["0" * 32] * -(-len(digests) // step)  # as long as the checksums will be
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.create_group("manifests")
        file.create_dataset("digests", data=digests)
        for name, text in texts.items():
            file.create_dataset(name, data=np.frombuffer(text, np.uint8))
        about = np.frombuffer(_about_text(rows, {**sums, "digests": checksum(digests), "features": blank}), np.uint8)
        about_at = file.create_dataset("about.json", data=about).id.get_offset()
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind, space = h5py.h5t.py_create(np.dtype(rows.spec.stored_dtype)), h5py.h5s.create_simple(rows.shape)
        features_at = h5py.h5d.create(file.id, b"features", kind, space, settings).get_offset()
    checksums: list[str] = []
    with path.open("r+b") as out:
        out.write(image.getbuffer())
        out.seek(features_at)
        for values in rows.stretches(step):
            checksums.append(checksum(values))
            out.write(values.reshape(-1).view(np.uint8).data)
            advance(len(values))
        out.seek(about_at)
        out.write(_about_text(rows, {**sums, "digests": checksum(digests), "features": checksums}))


def _about_text(rows: RowTable, checksums: dict[str, Any]) -> bytes:
    about = {
        "format": _FORMAT,
        "version": _VERSION,
        "set": rows.spec.name,
        "fingerprint": rows.spec.fingerprint,
        "views": list(rows.views),
        "checksums": checksums,
    }
    return json.dumps({**about, "seal": digest_json(about)}, indent=2).encode()


@contextmanager
def open_hdf5(path: Path) -> Iterator["ExportedSet"]:
    """A file that `write_hdf5` may have written, all but its features checked. Raises CacheError."""
    import h5py

    try:
        if not path.is_file():  # a pipe would be waited for, a device read without end
            raise CacheError(f"{path} is no file")
        with path.open("rb") as start:
            if start.read(len(_SIGNATURE)) != _SIGNATURE:
                raise CacheError(f"{path} is no HDF5 file", hint=_MAKE)
        with _faults(f"{path}"):
            file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        with _faults(f"{path}"):
            root = h5py.h5g.open(file.id, b"/")
        yield ExportedSet(root, str(path), path.stat().st_size)


class ExportedSet:
    """What a file holds: `spec`, `recorded`, `views`, `digests`, `manifests`, and the features by iterating."""

    def __init__(self, root: "h5py.h5g.GroupID", where: str, file_bytes: int) -> None:
        """Raises CacheError for whatever no export writes."""
        self.where, self._root, self._file_bytes = where, root, file_bytes
        if self._names(root) != _MEMBERS:
            raise CacheError(f"{where} is no exported feature set", hint=_MAKE)
        about = _about(bytes(self._array("about.json", _BYTE, 1)[...]), where)
        self._sums: dict[str, Any] = about["checksums"]
        self.spec = claims.checked_spec(self._json("spec.json"), f"{where}:/spec.json")
        if (self.spec.name, self.spec.fingerprint) != (about.get("set"), about.get("fingerprint")):
            raise CacheError(f"{where} holds another feature set than it says: {self.spec.name}")
        self.recorded = claims.checked_recorded(self._json("recorded.json"), f"{where}:/recorded.json")
        self.views = _views(about.get("views"), where)
        self.digests = [digest.decode("latin-1") for digest in self._checked("digests", _DIGEST).tolist()]
        claims.require_digests(self.digests, where)
        self._row = (len(self.views), *self.spec.row_shape)
        stored = list(self._row) if about["version"] > 1 else [*self._row[:2], self.spec.width]
        self._features = self._array("features", np.dtype(self.spec.stored_dtype), 1 + len(stored))
        count, *row = self._features.shape
        if row != stored or math.prod(row) != math.prod(self._row) or count != len(self.digests):
            raise CacheError(f"{where} holds features {self._features.shape}, which is not what its description says")
        self.bytes = math.prod(self._features.shape) * self._features.dtype.itemsize
        if self.bytes // count > _LARGEST_ROW:
            raise CacheError(f"{where} holds rows of {self.bytes // count:,} bytes; no encoder has such")
        self._step = stretch_rows(self.bytes // count)
        sums = self._sums.get("features")
        if not isinstance(sums, list) or len(sums) != -(-count // self._step):
            raise CacheError(f"{where} does not hold a checksum for each stretch of its features")
        names = [f"manifests/{name}" for name in self._names(self._open("manifests"))]
        texts = {name: bytes(self._checked(name, _BYTE)) for name in names}
        self.manifests = [claims.checked_manifest(text, f"{where}:/{name}") for name, text in texts.items()]

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Digests (R,) and values (R, V, L, T, D) in order. Raises CacheError for other bytes than were exported."""
        for number, expected in enumerate(self._sums["features"]):
            stretch = slice(number * self._step, (number + 1) * self._step)
            with _faults(self.where):
                values = np.asarray(self._features[stretch])
            if checksum(values) != expected:
                raise CacheError(
                    f"{self.where} is damaged: rows from {stretch.start:,} on have other bytes than were exported",
                    hint=_AGAIN,
                )
            if not np.isfinite(values).all():
                raise CacheError(f"{self.where} holds values that are not numbers, in rows from {stretch.start:,} on")
            yield self.digests[stretch], values.reshape(len(values), *self._row)

    def _json(self, name: str) -> Any:
        return claims.checked_json(bytes(self._checked(name, _BYTE)), f"{self.where}:/{name}")

    def _checked(self, name: str, dtype: "np.dtype[Any]") -> np.ndarray:
        """All of a member, held against its checksum."""
        with _faults(f"{self.where}:/{name}"):
            array = np.asarray(self._array(name, dtype, 1)[...])
        if checksum(array) != self._sums.get(name):
            raise CacheError(f"{self.where} is damaged: {name} is not what was exported", hint=_AGAIN)
        return array

    def _names(self, group: Any) -> list[str]:
        from h5py import h5g

        with _faults(self.where):
            if type(group) is not h5g.GroupID or group.get_num_objs() > _MOST_MEMBERS:
                raise CacheError(f"{self.where} holds a group that no export writes", hint=_MAKE)
            return sorted(name.decode() for name in group)

    def _open(self, name: str) -> Any:
        """A member by its path, every link on the way a hard one. Raises CacheError."""
        from h5py import h5g, h5l, h5o

        found: Any = self._root
        with _faults(f"{self.where}:/{name}"):
            for part in name.encode().split(b"/"):
                if type(found) is not h5g.GroupID or part not in found:
                    raise CacheError(f"{self.where}:/{name} is missing")
                if found.links.get_info(part).type != h5l.TYPE_HARD:
                    raise CacheError(f"{self.where}:/{name} is a link that leads elsewhere")
                found = h5o.open(found, part)
        return found

    def _array(self, name: str, dtype: "np.dtype[Any]", dimensions: int) -> "h5py.Dataset":
        """A member of exactly that type and number of dimensions; nothing is read yet. Raises CacheError."""
        import h5py
        from h5py import h5d, h5s, h5t

        where, found = f"{self.where}:/{name}", self._open(name)
        if type(found) is not h5d.DatasetID:
            raise CacheError(f"{where} is no array")
        with _faults(where):
            settings, space = found.get_create_plist(), found.get_space()
            if settings.get_layout() != h5d.CONTIGUOUS or settings.get_nfilters():
                raise CacheError(f"{where} is virtual, filtered or in pieces; an export is none of these")
            if settings.get_external_count():
                raise CacheError(f"{where} lies in another file")
            if not found.get_type().equal(h5t.py_create(dtype)):
                raise CacheError(f"{where} is not of type {dtype.name}")
            if space.get_simple_extent_type() != h5s.SIMPLE or space.get_simple_extent_ndims() != dimensions:
                raise CacheError(f"{where} has not {dimensions} dimensions")
            size = dtype.itemsize * math.prod(int(length) for length in space.get_simple_extent_dims())
            offset = found.get_offset()
            # Checked before anything is allocated. Storage that was never written would read as zeros.
            if found.get_storage_size() != size or offset is None or not 0 < offset <= self._file_bytes - size:
                raise CacheError(f"{where} claims {size:,} bytes that are not in the file")
            return h5py.Dataset(found)


@contextmanager
def _faults(where: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise CacheError(f"{where} cannot be read as HDF5: {words}") from error


def _about(text: bytes, where: str) -> dict[str, Any]:
    about = claims.checked_json(text, f"{where}:/about.json")
    if not isinstance(about, dict) or about.get("format") != _FORMAT or about.get("version") not in (1, _VERSION):
        raise CacheError(f"{where} is no feature set of a form that this version reads")
    seal = about.pop("seal", None)
    try:
        whole = digest_json(about) == seal
    except (ValueError, RecursionError):  # NaN, half a surrogate pair
        whole = False
    if not whole or not isinstance(about.get("checksums"), dict):
        raise CacheError(f"{where} is damaged: its description is not what was exported", hint=_AGAIN)
    return about


def _views(value: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(view, int) and not isinstance(view, bool) for view in value)
    if not whole or not value or value != sorted(set(value)) or value[0] < 0 or value[-1] > _MOST_VIEWS:
        raise CacheError(f"{where} does not say which views it holds")
    return tuple(value)
