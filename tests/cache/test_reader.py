"""Reading: the rows that were written, whatever the order; what was damaged is named and never read."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.cache.blocks import Record
from epalm.cache.feature_set import FeatureSet
from epalm.cache.reader import FeatureReader
from epalm.cache.store import Cache
from epalm.errors import CacheError
from tests.cache.test_feature_set import SPEC, feature_set, folder, load, names, values

BLOCKS = (4, 1, 3)


def chunk(features: FeatureSet, record: Record) -> Path:
    return folder(features) / record.chunk


def _filled(root: Path) -> tuple[FeatureSet, dict[str, np.ndarray]]:
    features = feature_set(root)
    expected: dict[str, np.ndarray] = {}
    for number, rows in enumerate(BLOCKS):
        written = values(rows, seed=number)
        features.write_block(names(rows, f"{number}-"), written)
        expected |= dict(zip(names(rows, f"{number}-"), written[:, 0], strict=True))
    return features, expected


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureSet, dict[str, np.ndarray]]:
    return _filled(tmp_path_factory.mktemp("cache"))


def _mapped(features: FeatureSet) -> FeatureReader:
    return FeatureReader(features.objects, features.records(), SPEC, memory=0)


def _read_mapped(features: FeatureSet) -> np.ndarray:
    """What is mapped is held against its record when it is."""
    reader = _mapped(features)
    return reader.gather(np.arange(len(reader.digests)))


@given(st.lists(st.integers(0, sum(BLOCKS) - 1), max_size=20))
@settings(deadline=None)
def test_rows_come_as_written_in_any_order(filled: tuple[FeatureSet, dict[str, np.ndarray]], order: list[int]) -> None:
    features, expected = filled
    wanted = [list(expected)[place] for place in order]
    for reader in (features.open(), _mapped(features)):
        gathered = reader.gather(reader.rows_of(wanted))
        assert gathered.dtype == np.float16
        there = np.array([expected[name] for name in wanted]).reshape(-1, *SPEC.row_shape)
        np.testing.assert_array_equal(gathered, there)


def test_layers_can_be_chosen(filled: tuple[FeatureSet, dict[str, np.ndarray]]) -> None:
    features, rows = filled[0], np.array([7, 0])
    whole = features.open().gather(rows)
    for places in ([1, 2], [0, 2], [1]):
        wanted = replace(SPEC, layers=tuple(SPEC.layers[place] for place in places))
        for memory in (0, None):
            reader = FeatureReader(features.objects, features.records(), SPEC, wanted=wanted, memory=memory)
            np.testing.assert_array_equal(reader.gather(rows), whole[:, places])


def test_a_medium_without_a_row_is_an_error(filled: tuple[FeatureSet, dict[str, np.ndarray]]) -> None:
    reader = filled[0].open()
    with pytest.raises(CacheError, match="2 media"):
        reader.rows_of(["unheard", None, reader.digests[0]])


def test_an_empty_set_has_no_rows(tmp_path: Path) -> None:
    reader = feature_set(tmp_path).open()
    assert reader.digests == []


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _zero_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-40] + bytes(40))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "zero tail": _zero_tail,
    "flipped bit": _flip,
    "missing folder": lambda path: shutil.rmtree(path.parent),
}


def test_a_block_made_again_by_another_process_is_found_with_a_record_of_before(tmp_path: Path) -> None:
    features, expected = _filled(tmp_path)
    record, array, mapped = features.records()[0], features.to_dask(), features.open(mapped=True)
    other = Cache(tmp_path).load(features.name)
    assert other.drop(record.block, record)
    assert other.write_block(record.rows, np.stack([expected[name] for name in record.rows])[:, np.newaxis])
    rows = [expected[name] for name in record.rows]
    found = dict(zip(features.digests(), array[:, 0].compute(scheduler="sync"), strict=True))
    np.testing.assert_array_equal([found[name] for name in record.rows], np.array(rows, np.float32))
    for reader in (mapped, features.open()):
        np.testing.assert_array_equal(reader.gather(reader.rows_of(record.rows)), rows)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_named_and_repaired(kind: str, tmp_path: Path) -> None:
    features, expected = _filled(tmp_path)
    record = next(record for record in features.records() if len(record.rows) == 4)
    DAMAGE[kind](chunk(features, record))
    for opening in (features.open, lambda: _read_mapped(features)):
        with pytest.raises(CacheError, match=record.block) as caught:
            opening()
        assert "epalm cache verify" in (caught.value.hint or "")
    (fault,) = features.verify()
    assert fault.block == record.block
    features.drop(fault.block, fault.record)
    assert features.verify() == []
    assert features.rows() == set(expected) - set(record.rows)
    assert features.write_block(record.rows, np.stack([expected[name] for name in record.rows])[:, np.newaxis])
    reader = features.open()
    np.testing.assert_array_equal(reader.gather(reader.rows_of(list(expected))), np.array(list(expected.values())))


def test_swapped_blocks_are_found(tmp_path: Path) -> None:
    features = feature_set(tmp_path)
    features.write_block(names(2), values(2, seed=1))
    features.write_block(names(2, "e"), values(2, seed=2))
    first, second = (chunk(features, record) for record in features.records())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert len(features.verify()) == 2
    with pytest.raises(CacheError, match="other bytes"):
        features.open()


@pytest.mark.parametrize("text", ["", "{", '{"block": 1}', "[]"])
def test_a_torn_record_is_found(text: str, tmp_path: Path) -> None:
    features, _ = _filled(tmp_path)
    path = sorted((folder(features) / "records").glob("*.json"))[0]
    path.write_text(text)
    fresh = load(features)
    with pytest.raises(CacheError, match=r"record|read"):
        fresh.open()
    assert [(fault.block, fault.record) for fault in fresh.verify()] == [(path.stem, None)]


def test_torn_metadata_is_found(tmp_path: Path) -> None:
    features, _ = _filled(tmp_path)
    record = features.records()[0]
    (folder(features) / "blocks" / record.folder / "zarr.json").write_text("{")
    assert [fault.block for fault in features.verify()] == [record.block]
