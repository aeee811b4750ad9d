"""Collecting: what nothing needs goes, what something may need stays, and a dry run says the same as a real one."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from epalm.cache.care.collect import Garbage, find_garbage
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache, mark, touch
from epalm.errors import CacheError
from tests.cache.test_feature_set import SPEC, feature_set, folder, names, values
from tests.conftest import Epalm

HOUR = 3600.0
OLD = 48 * HOUR  # beyond the grace period


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    made = feature_set(tmp_path)
    made.write_block(names(3), values(3))
    made.write_block(names(2, "e"), values(2, seed=1))
    return made


def age(root: Path, seconds: float = OLD) -> None:
    """Make everything below look as if it were that old."""
    then = time.time() - seconds
    for path in [*root.rglob("*"), root]:
        os.utime(path, (then, then))


def garbage_in(root: Path, **options: object) -> list[Garbage]:
    return find_garbage(Cache(root), **options)  # type: ignore[arg-type]


def whole(features: FeatureSet) -> None:
    assert features.verify() == []
    assert features.rows() == {*names(3), *names(2, "e")}


def _draft(features: FeatureSet) -> Path:
    path = folder(features) / "records" / ".0123456789abcdef.json.89abcdef"
    path.write_text("{")
    return path


def _draft_of_the_cache(features: FeatureSet) -> Path:
    path = folder(features).parents[1] / "latest" / ".image.json.89abcdef"
    path.parent.mkdir()
    path.write_text("{")
    return path


def _loose_block(features: FeatureSet) -> Path:
    path = folder(features) / "blocks" / "0123456789abcdef-89abcdef"
    path.mkdir()
    (path / "c.0.0.0.0.0").write_bytes(b"rows")
    return path


def _no_set(features: FeatureSet) -> Path:
    path = folder(features).parent / "image-vit-0123456789ab"
    path.mkdir()
    (path / "recorded.json").write_text("{}")
    return path


LEFT = [_draft, _draft_of_the_cache, _loose_block, _no_set]


@pytest.mark.parametrize("leave", LEFT, ids=lambda leave: leave.__name__.strip("_"))
def test_what_nothing_needs_goes_when_it_is_old_and_the_rows_stay(
    leave: Callable[[FeatureSet], Path], features: FeatureSet, tmp_path: Path, epalm: Epalm
) -> None:
    path = leave(features)
    words = ("cache", "gc", "--cache", tmp_path, "--json")
    assert json.loads(epalm(*words).out)["found"] == []  # too young
    assert path.exists()
    age(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    dry = json.loads(epalm(*words, "--dry-run").out)
    assert dry["found"] and dry["freed"] == 0 and sorted(tmp_path.rglob("*")) == before
    done = json.loads(epalm(*words).out)
    assert done["found"] == dry["found"] and done["freed"] == dry["bytes"]
    assert not path.exists()
    whole(features)
    assert json.loads(epalm(*words).out)["found"] == []


def test_nothing_of_a_sound_set_is_garbage_however_old(features: FeatureSet, tmp_path: Path, epalm: Epalm) -> None:
    age(tmp_path)
    assert garbage_in(tmp_path, grace=0) == []
    assert "nothing to free" in epalm("cache", "gc", "--cache", tmp_path).err
    whole(features)


def test_what_lies_beside_a_cache_in_its_folder_stays_however_old(features: FeatureSet, tmp_path: Path) -> None:
    held = folder(features).relative_to(tmp_path).as_posix()
    for key in (
        *("sets/train/photos.txt", "sets/train/zarr.json", "sets/image-vit-0123456789ab/notes.txt"),
        *("blocks/castle/model.obj", "blocks/0123456789abcdef-89abcdef/c.0.0.0.0.0", f"{held}/blocks/castle/model.obj"),
        *("notes/.draft.12345678", ".draft.12345678", "latest/.draft.12345678", f"{held}/records/.draft.12345678"),
    ):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_text("mine")
    age(tmp_path)
    assert garbage_in(tmp_path) == []


def test_sets_without_a_user_go_when_that_is_asked_for(features: FeatureSet, tmp_path: Path, epalm: Epalm) -> None:
    cache = Cache(tmp_path)
    cache.remember("image", features.name, (3, 4, 5), "data.jsonl")
    age(tmp_path)
    words = ("cache", "gc", "--cache", tmp_path, "--runs", tmp_path / "runs")
    assert epalm(*words).code == 0 and cache.set_names()
    done = epalm(*words, "--unused")
    assert done.code == 0 and features.name in done.out and "freed" in done.err
    assert cache.set_names() == [] and not folder(features).exists()
    with pytest.raises(CacheError, match="nothing"):
        cache.latest()


def test_a_set_that_was_used_of_late_stays(features: FeatureSet, tmp_path: Path) -> None:
    age(tmp_path)
    touch(features.objects)
    assert garbage_in(tmp_path, unused=True) == []
    assert len(garbage_in(tmp_path, unused=True, grace=0)) == 1


def test_a_set_that_a_run_has_marked_stays_while_the_run_is_there(features: FeatureSet, tmp_path: Path) -> None:
    run = tmp_path / "elsewhere" / "run"
    run.mkdir(parents=True)
    mark(features.objects, str(run), socket.gethostname())
    age(tmp_path)
    assert garbage_in(tmp_path, unused=True) == []
    run.rmdir()
    assert len(garbage_in(tmp_path, unused=True)) == 1


def test_a_set_that_a_run_on_another_machine_has_marked_stays(features: FeatureSet, tmp_path: Path) -> None:
    mark(features.objects, "/nowhere/run", "another-machine")
    age(tmp_path)
    assert garbage_in(tmp_path, unused=True) == []


def test_a_set_with_a_mark_that_cannot_be_read_stays(features: FeatureSet, tmp_path: Path) -> None:
    mark(features.objects, "/nowhere/run", socket.gethostname())
    (path,) = (folder(features) / "uses").iterdir()
    path.write_text("{")
    age(tmp_path)
    assert garbage_in(tmp_path, unused=True) == []


def test_a_set_that_a_run_folder_names_stays(features: FeatureSet, tmp_path: Path, epalm: Epalm) -> None:
    run = tmp_path / "runs" / "demo" / "one"
    run.mkdir(parents=True)
    inputs = run / "inputs.json"
    inputs.write_text(json.dumps({"features": {"set": features.name}}))
    age(tmp_path)
    words = ("cache", "gc", "--unused", "--json", "--cache", tmp_path, "--runs", tmp_path / "other", "--runs")
    assert json.loads(epalm(*words, tmp_path / "runs").out)["found"] == []
    inputs.write_text("{")  # which set it uses is not known any more: none is taken for unused
    done = epalm(*words, tmp_path / "runs")
    assert done.code == 1 and str(inputs) in done.err
    assert Cache(tmp_path).set_names() == [features.name]
    assert json.loads(epalm(*words, tmp_path / "none").out)["found"]


def test_damaged_sets_are_left_to_verify(features: FeatureSet, tmp_path: Path) -> None:
    (folder(features) / "spec.json").unlink()
    age(tmp_path)
    assert garbage_in(tmp_path, unused=True) == []
    (folder(features) / "spec.json").write_text("{")
    age(tmp_path)
    assert garbage_in(tmp_path, unused=True) == []


def test_only_the_unused_one_of_two_sets_goes(features: FeatureSet, tmp_path: Path) -> None:
    other = Cache(tmp_path).feature_set(replace(SPEC, version=2), recorded={})
    other.write_block(names(2), values(2))
    mark(features.objects, "/nowhere/run", "another-machine")
    age(tmp_path)
    garbage = garbage_in(tmp_path, unused=True)
    assert [one.folder for one in garbage] == [f"sets/{other.name}"]
    assert garbage[0].bytes > 0
    garbage[0].delete()
    assert Cache(tmp_path).set_names() == [features.name]
    whole(features)


def test_an_object_store_is_checked_mended_and_collected_like_a_disk(s3_url: str, epalm: Epalm) -> None:
    cache = Cache(s3_url)
    features = cache.feature_set(SPEC, recorded={"torch": "2"})
    features.write_block(names(3), values(3))
    (record,) = features.records()
    features.objects.write(f"blocks/{record.folder}/zarr.json", b"{")
    features.objects.write("blocks/0123456789abcdef-89abcdef/c.0.0.0.0.0", b"rows")
    words = ("--cache", s3_url)
    assert epalm("cache", "verify", *words).code == 3
    assert epalm("cache", "verify", *words, "--repair").code == 3  # rows of the dropped block are missing now
    assert epalm("cache", "verify", *words).code == 0
    assert json.loads(epalm("cache", "gc", *words, "--json").out)["found"] == []
    time.sleep(1.1)  # the store's clock has seconds
    done = json.loads(epalm("cache", "gc", *words, "--grace", 0, "--json").out)
    assert done["freed"] == 4 and len(done["found"]) == 1
    assert json.loads(epalm("cache", "gc", *words, "--grace", 0, "--unused", "--json").out)["freed"] > 0
    assert cache.set_names() == []
