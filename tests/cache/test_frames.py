"""Feature sets as pandas DataFrames and Dask arrays: the rows that were written, in an order that can be looked up."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from epalm.cache import blocks, row_table
from epalm.cache.blocks import Record
from epalm.cache.feature_set import FeatureSet
from epalm.cache.objects.base import Objects
from epalm.cache.store import Cache
from epalm.errors import CacheError, UsageError
from tests.cache.test_feature_set import SPEC, folder
from tests.feature_sets import BLOCKS, Block, contents, digest, make_set


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path, BLOCKS)


@pytest.fixture(autouse=True)
def _in_this_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def test_a_frame_has_a_row_for_each_medium_of_each_block(features: FeatureSet) -> None:
    frame = features.frame()
    records = features.records()
    expected = [(row, record.views, record.block, place) for record in records for place, row in enumerate(record.rows)]
    assert list(zip(frame["digest"], frame["views"], frame["block"], frame["row"], strict=True)) == expected
    names = dict(zip(frame["digest"], frame["names"], strict=True))
    assert names[digest(13)] == ("13.png",)
    assert str(frame["written"].dtype).startswith("datetime64") and frame["written"].notna().all()
    assert frame["versions"].map(lambda versions: versions == {"torch": "2"}).all() and frame["host"].notna().all()
    one = frame.set_index("block").loc[records[0].block].iloc[0]
    assert abs(one["written"].timestamp() - (records[0].time or 0.0)) < 1e-3
    views = frame.explode("views")
    assert set(views.loc[views["views"] == 2, "digest"]) == {digest(medium) for medium in range(4, 9)}


def test_an_empty_set_has_an_empty_frame_of_the_same_columns(tmp_path: Path, features: FeatureSet) -> None:
    empty = make_set(tmp_path / "empty", [])
    assert len(empty.frame()) == 0 and list(empty.frame().columns) == list(features.frame().columns)
    with pytest.raises(CacheError, match="no row"):
        empty.to_dask()


def _expected(features: FeatureSet, digests: list[str], views: tuple[int, ...]) -> np.ndarray:
    rows = contents(features)
    values = [[np.frombuffer(rows[name, view], np.float16) for view in views] for name in digests]
    return np.array(values).reshape(len(digests), len(views), *features.spec.row_shape)


@pytest.mark.parametrize("views", [None, (0, 1), (0, 2), (2,)])
def test_a_dask_array_has_the_rows_that_were_written(features: FeatureSet, views: tuple[int, ...] | None) -> None:
    array, digests = features.to_dask(views=views), features.digests(views=views)
    assert array.dtype == np.float32 and array.shape == (len(digests), len(views or (0,)), *SPEC.row_shape)
    np.testing.assert_array_equal(array.compute(), _expected(features, digests, views or (0,)).astype(np.float32))


def test_layers_can_be_chosen(features: FeatureSet) -> None:
    np.testing.assert_array_equal(features.to_dask(layers=[3, 5]).compute(), features.to_dask().compute()[:, :, [0, 2]])
    for wrong in ({"layers": [2]}, {"views": [7]}):
        with pytest.raises(UsageError, match="does not hold"):
            features.to_dask(**wrong)  # type: ignore[arg-type]


def test_one_delayed_read_a_block(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = blocks.read_values

    def reading(objects: Objects, record: Record) -> np.ndarray:
        read.append(record.block)
        return original(objects, record)

    monkeypatch.setattr(row_table, "read_values", reading)
    array = features.to_dask(views=[0, 2])
    assert not read
    array.mean().compute()
    assert len(read) == len(set(read)) > 1


def test_means_are_those_of_numpy_in_float64_where_float16_would_overflow(tmp_path: Path) -> None:
    wide = make_set(tmp_path, [Block(range(start, start + 64)) for start in range(0, 512, 64)], replace(SPEC, width=64))
    array = wide.to_dask() * 1000
    plain = _expected(wide, wide.digests(), (0,)).astype(np.float64) * 1000
    for axis in (None, 0, 2, 4):
        np.testing.assert_allclose(array.mean(axis=axis).compute(), plain.mean(axis=axis), rtol=1e-4, atol=1e-3)


def test_damage_is_found_when_it_is_read(features: FeatureSet) -> None:
    array = features.to_dask()
    (folder(features) / features.records()[0].chunk).write_bytes(b"")
    with pytest.raises(CacheError, match="is damaged"):
        array.compute()


def test_a_cache_is_a_frame_of_sets_and_a_frame_of_ledgers(tmp_path: Path, features: FeatureSet) -> None:
    cache = Cache(tmp_path)
    other = cache.feature_set(replace(SPEC, version=2), recorded={})
    ledger = cache.ledger()
    assert ledger.to_dict("records") == [
        {"set": features.name, "modality": "image", "media": "torn.png", "digest": digest("torn")}
        | {"error": "it is torn", "hint": None, "warning": False}
    ]
    (folder(other) / "spec.json").write_text("{")
    sets = {one["set"]: one for one in cache.frame().to_dict("records")}
    assert [sets[features.name][key] for key in ("media", "tokens", "bad")] == [14, 2, 1]
    assert not isinstance(sets[features.name]["fault"], str) and "spec.json" in sets[other.name]["fault"]
    with pytest.raises(CacheError):
        cache.ledger()
    assert list(Cache(tmp_path / "none").frame().columns) == list(cache.frame().columns)


def test_the_example_in_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cache.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    make_set(tmp_path / ".epalm" / "cache", [Block(range(5), (0, 1)), Block(range(5, 8))])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/cache.md", "exec"), names)
    assert names["array"].shape == (8, 1, 1, 2, 5) and len(names["rows"]) == 8
    assert names["by_digest"].keys() == set(names["rows"]["digest"])
