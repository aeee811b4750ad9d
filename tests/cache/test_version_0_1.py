"""Caches and exports that epalm 0.1 wrote: they open, with one token in each row, and are added to."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epalm.cache.exchange.files import import_set
from epalm.cache.store import Cache
from tests.cache.test_feature_set import SPEC as SPEC_OF_TWO
from tests.feature_sets import Block, contents, make_set, move_set, require_same

SPEC = replace(SPEC_OF_TWO, tokens=1)
BLOCKS = (Block(range(3), (0, 1)), Block(range(3, 5)))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with `cache`, a feature set of `BLOCKS`, and `features.h5`, its export of view 0."""
    zipfile.ZipFile(Path(__file__).with_name("cache-0.1.zip")).extractall(tmp_path)
    return tmp_path


def test_a_cache_of_0_1_opens_with_the_same_name_and_rows(old: Path, tmp_path: Path) -> None:
    features = Cache(old / "cache").find(SPEC.name)
    assert features.spec == SPEC and features.spec.tokens == 1 and features.verify() == []
    assert contents(features) == contents(make_set(tmp_path / "new", BLOCKS, SPEC))
    for reader in (features.open(), features.open(mapped=True)):
        assert reader.gather(np.arange(5)).shape == (5, 3, 1, 5)
    assert Cache(old / "cache").latest().set == features.name


def test_it_is_added_to_and_copied(old: Path, tmp_path: Path) -> None:
    features = make_set(old / "cache", [Block(range(7))], SPEC)
    assert {record.format for record in features.records()} == {1, 2} and features.verify() == []
    assert contents(features) == contents(make_set(tmp_path / "new", [*BLOCKS, Block(range(7))], SPEC))
    move_set(features, Cache(tmp_path / "there"))
    require_same(features, tmp_path / "there")


def test_an_export_of_0_1_is_taken_in(old: Path, tmp_path: Path) -> None:
    assert import_set(Cache(tmp_path / "there"), old / "features.h5")["media"] == 5
    new = make_set(tmp_path / "new", [Block(range(5))], SPEC)
    assert contents(Cache(tmp_path / "there").find("image")) == contents(new)
