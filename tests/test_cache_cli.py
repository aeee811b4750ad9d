"""`epalm cache` as it is typed."""

import json
from pathlib import Path

import pytest

from epalm.cache.feature_set import FeatureSet
from tests.conftest import Epalm
from tests.test_cache_feature_set import SPEC, feature_set, folder, load, names, values


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    made = feature_set(tmp_path)
    made.write_block(names(4), values(4))
    made.ledger.add(media="bad.png", digest="x", error="it is torn", hint="make it again")
    return made


def test_ls_says_what_is_there(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    empty = epalm("cache", "ls", "--cache", tmp_path / "other")
    assert empty.code == 0 and "no feature set yet" in empty.err
    done = epalm("cache", "ls", "--cache", tmp_path)
    assert "image-vit" in done.out
    (figures,) = json.loads(epalm("cache", "ls", "--cache", tmp_path, "--json").out)
    assert (figures["set"], figures["media"], figures["bad"]) == (SPEC.name, 4, 1)


def test_info_says_what_decides_the_numbers(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    assert "it is torn" in epalm("cache", "info", "image", "--cache", tmp_path).out
    figures = json.loads(epalm("cache", "info", "image", "--cache", tmp_path, "--json").out)
    assert figures["fingerprint"] == SPEC.fingerprint
    assert figures["ledger"] == [{"media": "bad.png", "error": "it is torn", "hint": "make it again"}]


def test_verify_finds_damage_and_repair_drops_it(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    assert epalm("cache", "verify", "--cache", tmp_path).code == 0
    (record,) = features.records()
    (folder(features) / record.chunk).write_bytes(b"")
    found = epalm("cache", "verify", "--cache", tmp_path, "--json")
    assert found.code == 3
    assert [fault["block"] for fault in json.loads(found.out)["faults"]] == [record.block]
    assert epalm("cache", "verify", "image", "--repair", "--cache", tmp_path).code == 0
    assert epalm("cache", "verify", "--cache", tmp_path).code == 0
    assert load(features).rows() == set()
