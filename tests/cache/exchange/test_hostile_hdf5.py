"""HDF5 files that nobody's export wrote: each is one error, and the cache stays as it was."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from epalm.cache.blocks import checksum
from epalm.cache.exchange.files import export_set, import_set
from epalm.cache.exchange.hdf5 import open_hdf5
from epalm.cache.store import Cache
from epalm.errors import CacheError
from epalm.fingerprint import canonical_json, digest_json
from tests.cache.test_feature_set import SPEC
from tests.conftest import Epalm
from tests.feature_sets import Block, digest, make_set

MEDIA = 6
SHAPE = (MEDIA, 1, *SPEC.row_shape)
VALUE = np.zeros((1, *SHAPE[1:]), np.float16)
Change = Callable[[h5py.File], object]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    here = tmp_path_factory.mktemp("exported")
    export_set(make_set(here / "cache", [Block(range(MEDIA))]), here / "f.h5")
    return (here / "f.h5").read_bytes()


@pytest.fixture
def path(exported: bytes, tmp_path: Path) -> Path:
    (tmp_path / "f.h5").write_bytes(exported)
    return tmp_path / "f.h5"


def _require_refused(path: Path) -> None:
    cache = path.parent / "cache"
    with pytest.raises(CacheError):
        import_set(Cache(cache), path)
    assert not cache.exists()


def _text(file: h5py.File, name: str) -> Any:
    return json.loads(file[name][...].tobytes())


def _put(file: h5py.File, name: str, value: bytes | np.ndarray) -> None:
    """Replace a member, and make the checksums right: whoever means ill can do that too."""
    del file[name]
    file[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    if name != "about.json":
        right = checksum(np.ascontiguousarray(file[name][...]))
        _say(file, checksums={**_text(file, "about.json")["checksums"], name: [right] if name == "features" else right})


def _say(file: h5py.File, **changes: Any) -> None:
    about = {key: value for key, value in _text(file, "about.json").items() if key != "seal"} | changes
    _put(file, "about.json", json.dumps({**about, "seal": digest_json(about)}).encode())


def _spec(**changes: Any) -> Change:
    """A spec of another content, under its right name."""

    def change(file: h5py.File) -> None:
        spec = {**SPEC.to_json(), **changes}
        _put(file, "spec.json", canonical_json(spec))
        fingerprint = digest_json(spec)
        _say(file, set=f"{spec['modality']}-vit-{fingerprint[:12]}", fingerprint=fingerprint)

    return change


def _member(name: str, **settings: Any) -> Change:
    """An array made otherwise than an export makes it."""

    def change(file: h5py.File) -> None:
        data = settings.pop("data", None)
        data = file[name][...] if data is None and "shape" not in settings else data
        del file[name]
        file.create_dataset(name, data=data, **settings)

    return change


def _link(name: str, link: Any) -> Change:
    def change(file: h5py.File) -> None:
        file.move(name, "elsewhere")
        del file["elsewhere"]
        file[name] = link

    return change


def _external_storage(file: h5py.File) -> None:
    stored = file["features"][...]
    aside = Path(file.filename).with_name("aside.bin")
    aside.write_bytes(stored.tobytes())
    _member("features", shape=SHAPE, dtype="<f2", external=[(str(aside), 0, stored.nbytes)])(file)


def _virtual(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("aside.h5"), "w") as aside:
        aside["features"] = file["features"][...]
        source = h5py.VirtualSource(aside["features"])
    layout = h5py.VirtualLayout(SHAPE, np.float16)
    layout[...] = source
    del file["features"]
    file.create_virtual_dataset("features", layout)


def _plugin(file: h5py.File) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk(SHAPE)
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # zstd, which a plugin would have to read
    del file["features"]
    h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F16LE, h5py.h5s.create_simple(SHAPE), settings)


def _compact(file: h5py.File) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.COMPACT)
    del file["features"]
    h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F16LE, h5py.h5s.create_simple(SHAPE), settings)


def _named_type(file: h5py.File) -> None:
    del file["features"]
    file["features"] = np.dtype("<f2")


def _group(file: h5py.File) -> None:
    del file["features"]
    file.create_group("features")


def _loop(file: h5py.File) -> None:
    del file["manifests"]
    file["manifests"] = file["/"]


def _digests(*values: bytes) -> Change:
    return lambda file: _put(file, "digests", np.array([*file["digests"][: MEDIA - len(values)], *values], "S64"))


def _values(value: float) -> Change:
    return lambda file: _put(file, "features", np.append(file["features"][:-1], np.full_like(VALUE, value), 0))


HOSTILE: dict[str, Change] = {
    "external link": _link("features", h5py.ExternalLink("aside.h5", "/features")),
    "external link to a text": _link("spec.json", h5py.ExternalLink("/etc/passwd", "/")),
    "soft link": _link("features", h5py.SoftLink("/digests")),
    "soft link of the group": _link("manifests", h5py.SoftLink("/")),
    "external storage": _external_storage,
    "virtual": _virtual,
    "plugin": _plugin,
    "compact": _compact,
    "chunked": _member("features", chunks=(2, 1, *SPEC.row_shape)),
    "gzip": _member("features", compression="gzip"),
    "shuffle": _member("features", shuffle=True),
    "fletcher32": _member("digests", fletcher32=True),
    "gzip of a text": _member("spec.json", compression="gzip"),
    "references": _member("features", shape=SHAPE, dtype=h5py.ref_dtype),
    "region references": _member("features", shape=SHAPE, dtype=h5py.regionref_dtype),
    "texts of any length": _member("digests", shape=(MEDIA,), dtype=h5py.string_dtype()),
    "lists of any length": _member("features", shape=SHAPE, dtype=h5py.vlen_dtype(np.float16)),
    "enumeration": _member("features", shape=SHAPE, dtype=h5py.enum_dtype({"a": 1}, basetype="i2")),
    "compound": _member("features", shape=SHAPE, dtype=np.dtype([("a", "<f2")])),
    "opaque": _member("features", shape=SHAPE, dtype=np.dtype("V2")),
    "nested arrays": _member("features", shape=SHAPE[:4], dtype=np.dtype(("<f2", 5))),
    "big-endian": _member("features", data=np.zeros(SHAPE, ">f2")),
    "other floats": _member("features", data=np.zeros(SHAPE, "<f4")),
    "integers": _member("features", data=np.zeros(SHAPE, "<i2")),
    "longer digests": _member("digests", data=np.array([digest(0) + "0"] * MEDIA, "S65")),
    "a text as a text": _member("spec.json", data=np.bytes_(b"{}")),
    "a named type": _named_type,
    "a group": _group,
    "a loop": _loop,
    "null space": _member("features", data=h5py.Empty("<f2")),
    "huge": _member("features", shape=(10**9, *SHAPE[1:]), dtype="<f2"),
    "huger than numbers": _member("features", shape=(2**40, 2**10, *SPEC.row_shape), dtype="<f2"),
    "never written": _member("features", shape=SHAPE, dtype="<f2"),
    "huge text": _member("spec.json", shape=(2**40,), dtype="u1"),
    "no rows": _member("features", shape=(0, *SHAPE[1:]), dtype="<f2"),
    "fewer dimensions": _member("features", data=np.zeros((MEDIA, 15), "<f2")),
    "fewer layers": _member("features", data=np.zeros((MEDIA, 1, 2, 2, 5), "<f2")),
    "fewer rows": lambda file: _put(file, "features", np.zeros((MEDIA - 1, *SHAPE[1:]), np.float16)),
    "fewer digests": lambda file: _put(file, "digests", file["digests"][:-1]),
    "digest twice": _digests(digest(0).encode()),
    "digest no hex": _digests(b"z" * 64),
    "digest in capitals": _digests(digest(1).upper().encode()),
    "digest short": _digests(digest(1)[:63].encode()),
    "digest empty": _digests(b""),
    "digest beyond ASCII": _digests("٣".encode() * 32),
    "NaN": _values(np.nan),
    "infinity": _values(-np.inf),
    "other bytes": lambda file: file["features"].write_direct(np.ones(SHAPE, np.float16)),
    "another member": lambda file: file.create_dataset("more", data=[1]),
    "many members": lambda file: [file.create_group(f"{n}") for n in range(10_001)],
    "a member missing": lambda file: file.__delitem__("recorded.json"),
    "a file of something else": lambda file: file.clear(),
    "another version": lambda file: _say(file, version=3),
    "the version before, with a token axis": lambda file: _say(file, version=1),
    "no checksums": lambda file: _say(file, checksums={}),
    "checksums of another kind": lambda file: _say(file, checksums=["a"]),
    "a seal of another kind": lambda file: _put(file, "about.json", b'{"format": "epalm feature set", "version": 2}'),
    "another set's name": lambda file: _say(file, set="image-vit-000000000000"),
    "another fingerprint": lambda file: _say(file, fingerprint="0" * 64),
    "other views": lambda file: _say(file, views=[0, 1]),
    "negative view": lambda file: _say(file, views=[-1]),
    "view of another kind": lambda file: _say(file, views=["0"]),
    "views of another kind": lambda file: _say(file, views={"0": 1}),
    "another spec": lambda file: _put(file, "spec.json", canonical_json({**SPEC.to_json(), "version": 9})),
    "spec with more": _spec(more=1),
    "spec that leads out": _spec(modality="../../../outside"),
    "spec of another modality": _spec(modality=["image"]),
    "spec of no layers": _spec(layers=[]),
    "spec of layers out of order": _spec(layers=[5, 4, 3]),
    "spec of layers that are texts": _spec(layers="345"),
    "spec of no tokens": _spec(tokens=0),
    "spec of other tokens": _spec(tokens=3),
    "spec of a wide row": _spec(width=2**40),
    "spec of objects": _spec(stored_dtype="object"),
    "spec of a list": _spec(encoder=["vit"]),
    "spec no object": lambda file: _put(file, "spec.json", b"[]"),
    "spec no JSON": lambda file: _put(file, "spec.json", b"{"),
    "spec of NaN": lambda file: _put(file, "spec.json", SPEC.to_bytes().replace(b'"width":5', b'"width":NaN')),
    "half a surrogate pair": lambda file: _put(file, "spec.json", SPEC.to_bytes().replace(b'"abc"', b'"\\ud800"')),
    "deep": lambda file: _put(file, "spec.json", b"[" * 100_000),
    "deep inside": lambda file: _put(file, "manifests/0000.jsonl", b"[" * 100_000),
    "a number of many digits": lambda file: _put(file, "spec.json", b"1" * 100_000),
    "recorded no texts": lambda file: _put(file, "recorded.json", b'{"encoder": {"kind": "vit"}}'),
    "recorded no object": lambda file: _put(file, "recorded.json", b'"torch"'),
    "names no texts": lambda file: _put(file, "manifests/0000.jsonl", f'{{"data":"a"}}\n[5,"{digest(0)}"]\n'.encode()),
    "names of no digest": lambda file: _put(file, "manifests/0000.jsonl", b'{"data": "a"}\n["b.png", "c"]\n'),
    "names of a list": lambda file: _put(file, "manifests/0000.jsonl", b'{"data": "a"}\n["b.png", []]\n'),
    "names of nothing": lambda file: _put(file, "manifests/0000.jsonl", b'{"data": 5}\n'),
    "names in half pairs": lambda file: _put(file, "manifests/0000.jsonl", b'{"data": "\\ud800"}\n'),
    "no manifest": lambda file: _put(file, "manifests/0000.jsonl", b"\n"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_no_export_writes_is_refused(kind: str, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        HOSTILE[kind](file)
    _require_refused(path)


def test_the_changes_alone_are_what_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name in ("features", "digests", "spec.json", "recorded.json", "manifests/0000.jsonl"):
            _put(file, name, file[name][...])
        _spec()(file)
    assert import_set(Cache(path.parent / "cache"), path)["media"] == MEDIA


@pytest.mark.parametrize("text", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"{}", b"\0" * 4096], ids=repr)
def test_what_is_no_hdf5_is_refused(text: bytes, path: Path) -> None:
    path.write_bytes(text)
    _require_refused(path)


def test_what_is_no_file_is_refused(path: Path, epalm: Epalm) -> None:
    os.mkfifo(path.with_name("pipe"))
    for name in (".", "pipe", "missing.h5", "/dev/zero"):
        done = epalm("cache", "import", path.parent / name, "--cache", path.parent / "cache")
        assert done.code == 1 and done.err.count("error: ") == 1
    assert not (path.parent / "cache").exists()


def test_a_file_that_ends_early_is_refused(exported: bytes, path: Path) -> None:
    for size in range(0, len(exported), 61):
        path.write_bytes(exported[:size])
        _require_refused(path)


def test_no_flipped_bit_gives_other_content(exported: bytes, path: Path) -> None:
    def content() -> list[Any]:
        with open_hdf5(path) as file:
            rows = [(digests, values.tobytes()) for digests, values in file]
            return [file.spec, file.recorded, file.views, file.manifests, rows]

    expected, found, rng = content(), 0, random.Random(0)
    for place in range(0, len(exported), 7):
        torn = bytearray(exported)
        torn[place] ^= 1 << rng.randrange(8)
        path.write_bytes(torn)
        try:
            assert content() == expected
        except CacheError:
            found += 1
    assert found > 100
