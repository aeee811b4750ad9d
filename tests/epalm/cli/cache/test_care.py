"""`epalm cache verify` and `gc` as they are typed: what is damaged, what becomes of it, and in each form."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Manifest, write_manifest
from epalm.cache.store import Cache
from tests.cache.test_feature_set import SPEC, feature_set, folder, names, values
from tests.conftest import Epalm


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    made = feature_set(tmp_path)
    made.write_block(names(4), values(4))
    return made


def test_each_listing_has_the_same_rows_in_each_form(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    (record,) = features.records()
    (folder(features) / "blocks" / record.folder / "zarr.json").write_text("[")
    (folder(features) / "records" / ".0123456789abcdef.json.89abcdef").write_text("{")
    rows = {
        ("info", "image"): ("fingerprint", SPEC.fingerprint),
        ("why", "image"): None,
        ("verify",): ("what", f"block {record.block}"),
        ("gc", "--grace", "0", "--dry-run"): ("bytes", "1"),
    }
    for words, expected in rows.items():
        csv = epalm("cache", *words, "--cache", tmp_path, "--format", "csv").out
        read = pd.read_csv(io.StringIO(csv), dtype=str)
        assert expected is None or (expected[1] in csv and expected[0] in [*read.columns, *read.iloc[:, 0]])
        by_json = epalm("cache", *words, "--cache", tmp_path, "--format", "json").out
        assert json.loads(by_json) == json.loads(epalm("cache", *words, "--cache", tmp_path, "--json").out)


def test_verify_reports_every_set_and_finds_damage(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    assert epalm("cache", "verify", "--cache", tmp_path).code == 0
    (record,) = features.records()
    (folder(features) / record.chunk).write_bytes(b"")
    other = Cache(tmp_path).feature_set(replace(SPEC, version=2), recorded={})
    (folder(other) / "spec.json").write_text("{")
    verified = epalm("cache", "verify", "--cache", tmp_path, "--json")
    assert verified.code == 3
    report = json.loads(verified.out)
    assert {(fault["set"], fault["what"]) for fault in report["faults"]} == {
        (features.name, f"block {record.block}"),
        (other.name, "spec.json"),
    }
    assert [one["set"] for one in report["sets"]] == sorted([features.name, other.name])
    assert epalm("cache", "verify", other.name, "--cache", tmp_path).code == 3  # by name, though it cannot be opened


def test_what_the_extraction_said_is_checked_and_mended_from_the_rest(
    epalm: Epalm, tmp_path: Path, features: FeatureSet
) -> None:
    path = folder(features) / "recorded.json"
    whole = json.loads(path.read_text())
    path.write_text("[")
    verified = epalm("cache", "verify", "--cache", tmp_path, "--json")
    assert verified.code == 3 and [fault["what"] for fault in json.loads(verified.out)["faults"]] == [path.name]
    assert epalm("cache", "verify", "--repair", "--cache", tmp_path).code == 0
    assert json.loads(path.read_text()) == whole
    assert epalm("cache", "verify", "--cache", tmp_path).code == 0


def test_a_damaged_manifest_is_named_and_left_to_the_next_extraction(
    epalm: Epalm, tmp_path: Path, features: FeatureSet
) -> None:
    manifest = Manifest("data.jsonl", {"a.png": "d0"})
    write_manifest(features.objects, manifest)
    (path,) = (folder(features) / "manifests").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    for words in ((), ("--repair",)):
        done = epalm("cache", "verify", *words, "--cache", tmp_path, "--json")
        (fault,) = json.loads(done.out)["faults"]
        assert done.code == 3 and path.name in fault["what"] and "epalm extract" in fault["hint"]
    write_manifest(features.objects, manifest)
    assert epalm("cache", "verify", "--cache", tmp_path).code == 0


def test_what_is_odd_but_not_damaged_is_passed_over(epalm: Epalm, tmp_path: Path, features: FeatureSet) -> None:
    write_manifest(features.objects, Manifest("data.jsonl", {"never.png": "none of them"}))  # as an import brings
    with (folder(features) / "ledger.jsonl").open("a") as file:
        file.write('{"media": "torn')
    assert epalm("cache", "verify", "--cache", tmp_path).code == 0
