"""The HDF5 form of a feature set, which can be taken in again: features, digests, and what the cache says of them.

Members: `features` (N, V, L, T, D); `digests` (N,), SHA-256 in hex; `spec.json`, `recorded.json` and
`manifests/*.jsonl` as in the set's folder, as arrays of bytes; and `about.json`: format, name, views, xxh3-128 of every
other member (of the features one for each stretch of rows), and a digest of itself. Version 1, of epalm 0.1, has no
token axis. Letters: N media, V views, L layers, T tokens, D hidden size.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from epalm.cache.blocks import checksum
from epalm.cache.exchange.chosen_rows import ChosenRows, stretch_rows
from epalm.cache.exchange.claims import checked_json, checked_manifest, checked_recorded, checked_spec, require_digests
from epalm.cache.exchange.hdf5_members import Members, open_members
from epalm.cache.exchange.hdf5_sink import Sink
from epalm.cache.manifest import Manifest
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

_FORMAT = {"format": "epalm feature set", "version": 2}
_MEMBERS = ["about.json", "digests", "features", "manifests", "recorded.json", "spec.json"]
_LARGEST_ROW = 256 << 20  # bytes of (V, L, T, D)
_MOST_VIEWS = 1 << 16
_DIGEST = np.dtype("S64")
_AGAIN = "copy the file again, or export it again"


def write_hdf5(
    path: Path,
    rows: ChosenRows,
    recorded: dict[str, Any],
    manifests: Sequence[Manifest],
    advance: Callable[[int], None],
) -> None:
    """Fill a file, stretch by stretch; `advance` is told how many media are written. Raises OSError, CacheError."""
    import h5py

    with closing(Sink(path)) as sink:
        with h5py.File(sink, "w") as file:
            features = file.create_dataset("features", rows.shape, np.dtype(rows.spec.stored_dtype))
            checksums: list[str] = []
            start = 0
            for values in rows:
                features[start : start + len(values)] = values
                sink.raise_fault()
                checksums.append(checksum(values))
                start += len(values)
                advance(len(values))
            _write_rest(file, rows, recorded, manifests, checksums)
        sink.raise_fault()


def _write_rest(
    file: Any, rows: ChosenRows, recorded: dict[str, Any], manifests: Sequence[Manifest], checksums: list[str]
) -> None:
    digests = np.array(rows.digests, _DIGEST)
    file.create_dataset("digests", data=digests)
    file.create_group("manifests")
    texts = {f"manifests/{number:04d}.jsonl": one.to_bytes() for number, one in enumerate(manifests)}
    texts |= {"spec.json": rows.spec.to_bytes(), "recorded.json": json.dumps(recorded, indent=2).encode()}
    sums = {name: checksum(np.frombuffer(text, np.uint8)) for name, text in texts.items()}
    about = {
        **_FORMAT,
        "set": rows.spec.name,
        "fingerprint": rows.spec.fingerprint,
        "views": list(rows.views),
        "checksums": {**sums, "digests": checksum(digests), "features": checksums},
    }
    texts["about.json"] = json.dumps({**about, "seal": digest_json(about)}, indent=2).encode()
    for name, text in texts.items():
        file.create_dataset(name, data=np.frombuffer(text, np.uint8))


@contextmanager
def open_hdf5(path: Path) -> Iterator["ExportedSet"]:
    """A file that `write_hdf5` may have written, all but its features checked. Raises CacheError."""
    with open_members(path) as members:
        yield ExportedSet(members, str(path))


class ExportedSet:
    """What a file holds: `spec`, `recorded`, `views`, `digests`, `manifests`, and the features by iterating."""

    def __init__(self, members: Members, where: str) -> None:
        """Raises CacheError for whatever no export writes."""
        self.where = where
        self._members = members
        if members.names() != _MEMBERS:
            raise CacheError(
                f"{where} is no exported feature set: it holds {', '.join(members.names())[:200]}",
                hint="epalm cache export SET FILE.h5 makes one",
            )
        about = _about(members.text("about.json"), where)
        self._sums: dict[str, Any] = about["checksums"]
        self.spec = checked_spec(self._json("spec.json"), f"{where}:/spec.json")
        if (self.spec.name, self.spec.fingerprint) != (about.get("set"), about.get("fingerprint")):
            raise CacheError(f"{where} holds another feature set than it says: {self.spec.name}")
        self.recorded = checked_recorded(self._json("recorded.json"), f"{where}:/recorded.json")
        self.views = _views(about.get("views"), where)
        dimensions = 5 if about["version"] > 1 else 4
        self._features = members.array("features", np.dtype(self.spec.stored_dtype), dimensions=dimensions)
        self.digests = self._read_digests()
        count, *row = self._features.shape
        self._row = (len(self.views), *self.spec.row_shape)
        stored = list(self._row) if dimensions == 5 else [*self._row[:2], self.spec.width]
        if row != stored or self.spec.tokens > 1 > dimensions - 4 or count != len(self.digests):
            raise CacheError(f"{where} holds features {self._features.shape}, which is not what its description says")
        self.bytes = math.prod(self._features.shape) * np.dtype(self.spec.stored_dtype).itemsize
        if self.bytes // count > _LARGEST_ROW:
            raise CacheError(f"{where} holds rows of {self.bytes // count:,} bytes; no encoder has such")
        self._step = stretch_rows(self.bytes // count)
        sums = self._sums.get("features")
        if not isinstance(sums, list) or len(sums) != -(-count // self._step):
            raise CacheError(f"{where} does not hold a checksum for each stretch of its features")
        self.manifests = self._read_manifests()

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Digests (R,) and values (R, V, L, T, D) in order. Raises CacheError for other bytes than were exported."""
        for number, expected in enumerate(self._sums["features"]):
            stretch = slice(number * self._step, (number + 1) * self._step)
            values = self._features[stretch]
            if checksum(values) != expected:
                raise CacheError(
                    f"{self.where} is damaged: rows from {stretch.start:,} on have other bytes than were exported",
                    hint=_AGAIN,
                )
            if not np.isfinite(values).all():
                raise CacheError(f"{self.where} holds values that are not numbers, in rows from {stretch.start:,} on")
            yield self.digests[stretch], values.reshape(len(values), *self._row)

    def _json(self, name: str) -> Any:
        return checked_json(self._text(name), f"{self.where}:/{name}")

    def _text(self, name: str) -> bytes:
        folder, _, member = name.rpartition("/")
        text = (self._members.group(folder) if folder else self._members).text(member)
        self._require(name, np.frombuffer(text, np.uint8))
        return text

    def _read_digests(self) -> list[str]:
        array = self._members.array("digests", _DIGEST, dimensions=1)[...]
        self._require("digests", array)
        digests = [digest.decode("latin-1") for digest in array.tolist()]
        require_digests(digests, self.where)
        return digests

    def _read_manifests(self) -> list[Manifest]:
        names = [f"manifests/{name}" for name in self._members.group("manifests").names()]
        return [checked_manifest(self._text(name), f"{self.where}:/{name}") for name in names]

    def _require(self, name: str, array: np.ndarray) -> None:
        if checksum(array) != self._sums.get(name):
            raise CacheError(f"{self.where} is damaged: {name} is not what was exported", hint=_AGAIN)


def _about(text: bytes, where: str) -> dict[str, Any]:
    about = checked_json(text, f"{where}:/about.json")
    if not isinstance(about, dict) or about.get("format") != _FORMAT["format"] or about.get("version") not in (1, 2):
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
