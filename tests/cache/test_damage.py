"""Damage: every changed bit is found, named and repairable, and never comes back as a feature."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import LEDGER, Entry, Ledger
from epalm.cache.objects.local import LocalObjects
from epalm.cache.reader import FeatureReader
from epalm.cache.store import Cache
from epalm.errors import CacheError
from tests.cache.test_feature_set import SPEC, feature_set, folder, load, names, values
from tests.conftest import Epalm

ROWS = 3


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    made = feature_set(tmp_path)
    made.write_block(names(ROWS), values(ROWS))
    return made


def _record_file(features: FeatureSet) -> Path:
    (path,) = (folder(features) / "records").glob("*.json")
    return path


def _chunk(features: FeatureSet) -> Path:
    (record,) = features.records()
    return folder(features) / record.chunk


def _read(features: FeatureSet) -> np.ndarray:
    reader = load(features).open()
    return reader.gather(reader.rows_of(names(ROWS)))


def _change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _flips(data: bytes) -> list[bytes]:
    """`data` with each of its bits flipped in turn."""
    number, bits = int.from_bytes(data), 8 * len(data)
    return [(number ^ (1 << bit)).to_bytes(len(data)) for bit in range(bits)]


def test_no_flipped_bit_of_a_record_gives_other_features(features: FeatureSet) -> None:
    path, found = _record_file(features), 0
    for torn in _flips(path.read_bytes()):
        path.write_bytes(torn)
        try:
            read = _read(features)
        except CacheError:
            found += 1
        else:  # the flip was in a part that decides nothing, such as the time of writing
            np.testing.assert_array_equal(read, values(ROWS)[:, 0])
    assert found > 0


def test_no_flipped_bit_of_a_chunk_is_read_or_passes_verification(features: FeatureSet) -> None:
    path, stored = _chunk(features), values(ROWS).nbytes
    whole = path.read_bytes()
    for torn in _flips(whole[:stored]):
        path.write_bytes(torn + whole[stored:])
        with pytest.raises(CacheError, match="other bytes"):
            features.open()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # the crc32c, which only verify reads
    np.testing.assert_array_equal(_read(features), values(ROWS)[:, 0])
    assert len(features.verify()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": names(ROWS)[::-1]},
        {"rows": ["other", *names(ROWS)[1:]]},
        {"rows": names(ROWS)[:2]},
        {"rows": 5},
        {"rows": ["\ud800", *names(ROWS)[1:]]},
        {"views": [1]},
        {"shape": [ROWS, 1, 5, 2, 3]},
        {"shape": [ROWS, 1, 30]},
        {"dtype": "int16"},
        {"bytes": 2},
        {"block": "0" * 16},
        {"folder": None},
        {"folder": "../elsewhere"},
        {"folder": "elsewhere"},
        {"checksum": "0" * 32},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_record_that_says_otherwise_is_refused_and_found(fields: dict[str, Any], features: FeatureSet) -> None:
    path = _record_file(features)
    _change(path, **fields)
    with pytest.raises(CacheError):
        load(features).open()
    (fault,) = features.verify()
    assert fault.block == path.stem


def test_a_record_under_another_name_is_refused(features: FeatureSet) -> None:
    path = _record_file(features)
    path.rename(path.with_name("0123456789abcdef.json"))
    with pytest.raises(CacheError, match="no commit record"):
        load(features).records()


def test_drafts_of_records_and_blocks_that_a_kill_left_are_passed_over(features: FeatureSet) -> None:
    path = _record_file(features)
    path.with_name(f".{path.name}.12345678").write_text("{")
    (folder(features) / "blocks" / ".0123456789abcdef-12345678").mkdir()
    assert len(features.block_names()) == 1 and features.verify() == []
    np.testing.assert_array_equal(_read(features), values(ROWS)[:, 0])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"shape": [3, 1, 3, 2, 5]}'])
def test_torn_metadata_of_zarr_is_found_and_repaired(text: str, features: FeatureSet) -> None:
    (record,) = features.records()
    (folder(features) / "blocks" / record.folder / "zarr.json").write_text(text)
    (fault,) = features.verify()
    features.drop(fault.block, fault.record)
    assert features.rows() == set()
    assert features.write_block(names(ROWS), values(ROWS))
    assert features.verify() == []


@pytest.mark.parametrize("fields", [{"shape": [ROWS, 1, 5, 2, 3]}, {"data_type": "int16", "fill_value": 0}], ids=str)
def test_metadata_of_zarr_that_says_otherwise_is_found(fields: dict[str, Any], features: FeatureSet) -> None:
    (record,) = features.records()
    _change(folder(features) / "blocks" / record.folder / "zarr.json", **fields)
    (fault,) = features.verify()
    assert fault.block == record.block


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"modality": "image"}', SPEC.to_bytes().decode().replace("[3,4,5]", "[3,4,6]")]
)
def test_a_damaged_spec_labels_no_rows(text: str, features: FeatureSet, tmp_path: Path) -> None:
    (folder(features) / "spec.json").write_text(text)
    for opening in (Cache(tmp_path).sets, lambda: Cache(tmp_path).find(SPEC.name), lambda: _read(features)):
        with pytest.raises(CacheError):
            opening()
    with pytest.raises(CacheError):
        Cache(tmp_path).existing(SPEC)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("damage", [b"", b"\0" * 94], ids=["empty", "zeros"])
def test_sizes_are_held_to(damage: bytes, memory: int | None, features: FeatureSet) -> None:
    _chunk(features).write_bytes(damage[:-1])
    with pytest.raises(CacheError, match="bytes instead of 184"):
        FeatureReader(features.objects, features.records(), SPEC, memory=memory)


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\x1cb", "a\r\nb", "a\0b", "bad\udcff"], ids=ascii)
def test_names_that_hold_line_ends_keep_their_ledger_line(name: str, tmp_path: Path) -> None:
    ledger = Ledger(LocalObjects(tmp_path))
    ledger.add_all([Entry(media=name, digest="1", error="torn", hint=None)])
    assert [entry.media for entry in ledger.entries()] == [name]


def test_a_ledger_cut_anywhere_keeps_its_whole_lines_and_takes_new_ones(tmp_path: Path) -> None:
    ledger = Ledger(LocalObjects(tmp_path))
    ledger.add_all([Entry(media="first", digest=None, error="bad", hint=None)])
    kept = (tmp_path / LEDGER).stat().st_size
    ledger.add_all([Entry(media="größer", digest=None, error="bad", hint=None)])
    whole = (tmp_path / LEDGER).read_bytes()
    for size in range(kept, len(whole) - 1):
        (tmp_path / LEDGER).write_bytes(whole[:size])
        ledger.add_all([Entry(media="new", digest=None, error="bad", hint=None)])
        assert [entry.media for entry in ledger.entries()] == ["first", "new"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")], ids=["chunk", "record"])
def test_what_repair_cannot_make_again_it_drops_and_it_can_be_written_again(
    damage: Callable[[Path], object], features: FeatureSet, tmp_path: Path, epalm: Epalm
) -> None:
    damage(_chunk(features) if damage is Path.unlink else _record_file(features))
    words = ("cache", "verify", SPEC.name, "--cache", tmp_path)
    assert epalm(*words).code == 3
    repaired = epalm(*words, "--repair", "--json")
    assert repaired.code == 3  # rows are gone: there are no media to make them from
    (fault,) = json.loads(repaired.out)["faults"]
    assert fault["outcome"] == "dropped" and "epalm extract" in fault["repair"]
    again = load(features)
    assert again.rows() == set() and again.write_block(names(ROWS), values(ROWS))
    np.testing.assert_array_equal(_read(features), values(ROWS)[:, 0])
    assert epalm(*words).code == 0


def test_an_unknown_set_is_one_error_that_names_those_there(features: FeatureSet, tmp_path: Path, epalm: Epalm) -> None:
    for command in ("info", "verify"):
        done = epalm("cache", command, "nothing", "--cache", tmp_path)
        assert done.code == 1 and done.out == ""
        assert done.err.count("error: ") == 1 and features.name in done.err


def test_an_empty_cache_lists_as_an_empty_json_array_and_is_whole(tmp_path: Path, epalm: Epalm) -> None:
    assert json.loads(epalm("cache", "ls", "--cache", tmp_path / "none", "--json").out) == []
    assert epalm("cache", "verify", "--cache", tmp_path / "none").code == 0
    assert not (tmp_path / "none").exists()
