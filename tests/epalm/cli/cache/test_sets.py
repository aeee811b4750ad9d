"""`epalm cache ls`, `info` and `ledger` as they are typed."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry, Manifest, write_manifest
from epalm.cache.store import Cache, mark, touch
from tests.cache.test_feature_set import SPEC, feature_set, folder, names, values
from tests.conftest import Epalm


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    made = feature_set(tmp_path)
    made.write_block(names(4), values(4))
    made.ledger.add_all([Entry(media="bad.png", digest="x", error="it is torn", hint="make it again")])
    return made


def test_ls_says_what_is_there(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    empty = epalm("cache", "ls", "--cache", tmp_path / "other")
    assert empty.code == 0 and "no feature set yet" in empty.err
    done = epalm("cache", "ls", "--cache", tmp_path)
    assert SPEC.name in done.out
    (figures,) = json.loads(epalm("cache", "ls", "--cache", tmp_path, "--json").out)
    assert (figures["set"], figures["media"], figures["bad"]) == (SPEC.name, 4, 1)
    assert (figures["views"], figures["layers"], figures["encoder"]) == ([0], [3, 4, 5], "vit")


def test_ls_says_when_a_set_was_last_used_and_by_which_runs(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    words = ("cache", "ls", "--cache", tmp_path, "--runs", tmp_path / "runs", "--json")
    (record,) = features.records()
    (figures,) = json.loads(epalm(*words).out)
    assert figures["last_used"] == record.time and figures["runs"] == []  # nothing later is known of it
    touch(features.objects)
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "inputs.json").write_text(json.dumps({"features": {"set": features.name}}))
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "inputs.json").write_text("{")
    mark(features.objects, str(run), socket.gethostname())  # the same run, once
    mark(features.objects, "/gone/run", socket.gethostname())
    mark(features.objects, "/data/run", "another-machine")
    (figures,) = json.loads(epalm(*words).out)
    assert figures["runs"] == [str(run), "another-machine:/data/run"]
    assert figures["last_used"] > (record.time or 0.0)


@pytest.mark.parametrize("damage", ["spec", "no spec", "record"])
def test_ls_names_a_damaged_set_and_hides_no_other(
    damage: str, epalm: Epalm, tmp_path: Path, features: FeatureSet
) -> None:
    other = Cache(tmp_path).feature_set(replace(SPEC, version=2), recorded={})
    other.write_block(names(2), values(2))
    if damage == "record":
        (folder(other) / "records" / f"{other.block_names()[0]}.json").write_text("{")
    elif damage == "spec":
        (folder(other) / "spec.json").write_text("{")
    else:
        (folder(other) / "spec.json").unlink()
    done = epalm("cache", "ls", "--cache", tmp_path)
    assert done.code == 0 and features.name in done.out and other.name in done.out and "damaged" in done.out
    listed = {
        figures["set"]: figures for figures in json.loads(epalm("cache", "ls", "--cache", tmp_path, "--json").out)
    }
    assert listed[features.name]["media"] == 4 and "fault" in listed[other.name]


def test_info_says_what_decides_the_numbers(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    write_manifest(features.objects, Manifest("data.jsonl", {"a.png": "d0", "b.png": "d1"}))
    printed = epalm("cache", "info", "image", "--cache", tmp_path).out
    assert "it is torn" in printed and "data.jsonl" in printed
    figures = json.loads(epalm("cache", "info", "image", "--cache", tmp_path, "--json").out)
    assert figures["fingerprint"] == SPEC.fingerprint
    torn = {"media": "bad.png", "error": "it is torn", "hint": "make it again", "warning": False}
    assert figures["ledger"] == [torn]
    assert figures["data"] == {"data.jsonl": 2} and figures["blocks"] == 1 and figures["views"] == [0]


def test_ledger_lists_what_still_has_no_row(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    features.ledger.add_all([Entry(media="again.png", digest="d0", error="it was torn", hint=None)])  # has a row by now
    features.ledger.add_all([Entry(media="replaced.png", digest="y", error="it was torn", hint=None)])
    features.ledger.add_all([Entry(media="absent.png", digest=None, error="it is not there", hint="copy it")])
    features.ledger.add_all([Entry(media="came.png", digest=None, error="it was not there", hint=None)])
    named = {"replaced.png": "d1", "came.png": "d2", "bad.png": "x"}
    write_manifest(features.objects, Manifest("data.jsonl", named))
    done = epalm("cache", "ledger", "--cache", tmp_path)
    assert done.code == 0 and "it is torn" in done.out and "make it again" in done.out
    assert "--retry-bad" in done.err
    entries = json.loads(epalm("cache", "ledger", "image", "--cache", tmp_path, "--json").out)
    assert [entry["media"] for entry in entries] == ["bad.png", "absent.png"]


def test_an_empty_ledger_says_so(epalm: Epalm, tmp_path: Path) -> None:
    feature_set(tmp_path)
    done = epalm("cache", "ledger", "--cache", tmp_path)
    assert done.code == 0 and "the ledger is empty" in done.err


def test_ledger_passes_over_damaged_sets_but_not_over_the_one_asked_for(
    epalm: Epalm, tmp_path: Path, features: FeatureSet
) -> None:
    other = Cache(tmp_path).feature_set(replace(SPEC, version=2), recorded={})
    (folder(other) / "spec.json").write_text("{")
    done = epalm("cache", "ledger", "--cache", tmp_path)
    assert done.code == 0 and "bad.png" in done.out and other.name in done.err
    assert epalm("cache", "ledger", other.name, "--cache", tmp_path).code == 1
