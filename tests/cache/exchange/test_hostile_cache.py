"""Another cache that says anything at all: what makes no sense is refused, and what arrives does no harm here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epalm.cache.blocks import block_id
from epalm.cache.care.check import check_set
from epalm.cache.care.collect import users_of
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import LEDGER
from epalm.cache.store import LATEST, Cache
from epalm.errors import CacheError
from tests.conftest import Epalm
from tests.feature_sets import BLOCKS, DATA, make_set, move_set


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path / "theirs", BLOCKS[:2])


def _rewrite(features: FeatureSet, change: Callable[[dict[str, Any]], object]) -> str:
    """Change the first record, and call its block as that of its rows and views is called."""
    path = sorted((Path(features.where) / "records").glob("*.json"))[0]
    value = json.loads(path.read_text())
    change(value)
    value["block"] = block_id(value["rows"], value["views"])
    path.unlink()
    path.with_name(f"{value['block']}.json").write_text(json.dumps(value))
    return str(value["block"])


@pytest.mark.parametrize(
    "change",
    [
        {"views": ["x"]},
        {"views": [1.5]},
        {"rows": [["a"]]},
        {"rows": ["a", "a"], "shape": [2, 1, 3, 2, 5]},
        {"shape": [5, 1, 10**30, 2, 5], "bytes": 10**32},
        {"checksum": 5},
        {"dtype": 5},
        {"folder": ["a"]},
        {"written": []},
    ],
    ids=str,
)
def test_a_record_of_another_kind_is_a_block_that_is_refused(
    change: dict[str, Any], features: FeatureSet, tmp_path: Path
) -> None:
    block = _rewrite(features, lambda value: value.update(change))
    done = move_set(features, Cache(tmp_path / "mine"))
    assert [fault.block for fault in done.faults] == [block] and len(done.blocks) == 1
    assert "no commit record" in done.faults[0].error and "\n" not in done.faults[0].error
    assert [finding["block"] for finding in check_set(Cache(tmp_path / "theirs"), features.name).findings[-1:]] == [
        block
    ]


def test_rows_that_are_no_digests_are_refused(features: FeatureSet, tmp_path: Path) -> None:
    _rewrite(features, lambda value: value.update(rows=[f"../../{row}" for row in range(len(value["rows"]))]))
    with pytest.raises(CacheError, match="not what epalm writes"):
        move_set(features, Cache(tmp_path / "mine"))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("time", [1e300, -1e300, 10**400, "then", None, float("nan")], ids=str)
def test_a_time_that_no_calendar_has_is_none(time: object, features: FeatureSet, tmp_path: Path) -> None:
    _rewrite(features, lambda value: value["written"].update(time=time))
    move_set(features, mine := Cache(tmp_path / "mine"))
    arrived = mine.load(features.name)
    assert len(arrived.frame()) == sum(len(record.rows) for record in arrived.records())
    assert mine.frame().fault.isna().all()


@pytest.mark.parametrize("key", ["records", "spec.json", "recorded.json", "manifests"])
def test_json_that_is_nested_without_end_is_damage(key: str, features: FeatureSet, tmp_path: Path) -> None:
    path = Path(features.where) / key
    (sorted(path.iterdir())[0] if path.is_dir() else path).write_text("[" * 100_000)
    theirs = Cache(tmp_path / "theirs")
    assert check_set(theirs, features.name).findings
    theirs.frame()
    try:
        assert move_set(theirs.find(features.name), Cache(tmp_path / "mine")).faults
    except CacheError:
        assert key != "records"


@pytest.mark.parametrize(
    "change", [{"encoder": "x"}, {"preprocessing": {"a": float("nan")}}, {"width": "5"}, {"layers": "345"}], ids=str
)
def test_a_spec_of_another_kind_is_named_and_not_read(
    change: dict[str, Any], features: FeatureSet, tmp_path: Path
) -> None:
    path = Path(features.where) / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    theirs = Cache(tmp_path / "theirs")
    assert "another format" in theirs.frame().fault[0]
    with pytest.raises(CacheError, match="another format"):
        theirs.find(features.name)


def test_a_line_of_the_ledger_that_is_no_text_is_passed_over(features: FeatureSet, tmp_path: Path) -> None:
    line = {"media": "\ud800.png", "digest": "a", "error": "x", "hint": None}
    lines = [line, {**line, "media": 5}, {**line, "media": "\udcff.png"}]
    (Path(features.where) / LEDGER).write_text("".join(json.dumps(one) + "\n" for one in lines))
    move_set(features, mine := Cache(tmp_path / "mine"))
    assert [entry.media for entry in mine.load(features.name).ledger.entries()] == ["\udcff.png"]


def test_notes_of_other_kinds_are_taken_for_none_and_marks_for_an_unknown_run(
    features: FeatureSet, tmp_path: Path
) -> None:
    theirs = Cache(tmp_path / "theirs")
    note: dict[str, Any] = {"modality": "image", "set": features.name, "layers": [3], "data": DATA, "time": 1.0}
    changes: dict[str, dict[str, Any]]
    changes = {"image": {"layers": [[3]]}, "video": {"time": "now"}, "audio": {"layers": 5}}
    for modality, change in changes.items():
        theirs.objects.write(f"{LATEST}/{modality}.json", json.dumps(note | change).encode())
    assert theirs.latest_of(features) is None
    for name, run in {"a": {"run": 5, "host": "x", "time": 2}, "b": {"run": "/r", "time": 2}, "c": ["/r"]}.items():
        features.objects.write(f"uses/{name}.json", json.dumps(run).encode())
    assert users_of(features.objects) == ["x:5", "damaged mark:b.json", "damaged mark:c.json"]


def test_a_data_set_is_shown_so_that_neither_terminal_nor_shell_acts_on_it(
    features: FeatureSet, tmp_path: Path, epalm: Epalm
) -> None:
    theirs = Cache(tmp_path / "theirs")
    theirs.remember("image", features.name, (3,), "\x1b[31mred\n; rm x")
    done = epalm("cache", "pull", tmp_path / "theirs", "--cache", tmp_path / "mine")
    assert done.code == 0 and r"--data '\x1b[31mred\n; rm x'" in done.err
