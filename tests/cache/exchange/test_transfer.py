"""Feature sets from cache to cache: what arrives is what was there, whatever stops or damages it on the way."""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.cache.exchange.files import export_set, import_set
from epalm.cache.exchange.transfer import note_latest, plan_transfer, run_transfer
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Manifest, read_manifests, write_manifest
from epalm.cache.store import Cache
from epalm.errors import CacheError, UsageError
from tests.cache.test_feature_set import SPEC
from tests.conftest import Epalm
from tests.feature_sets import (
    BLOCKS,
    DATA,
    Block,
    contents,
    digest,
    make_set,
    move_set,
    require_same,
    stored_bytes,
    stored_twice,
    wider,
)
from tests.passing_objects import passing, seen_cache


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path / "here", BLOCKS)


@pytest.fixture(params=["folder", "memory"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where another cache is."""
    return str(tmp_path / "there") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/cache"


_layout = st.lists(
    st.builds(
        Block,
        st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True),
        st.sets(st.integers(0, 2), min_size=1).map(lambda views: tuple(sorted(views))),
    ),
    min_size=1,
    max_size=4,
)


@given(_layout, _layout)
@settings(deadline=None, max_examples=15)
def test_rows_are_there_once_however_they_lie_in_blocks(
    tmp_path_factory: pytest.TempPathFactory, here: list[Block], already: list[Block]
) -> None:
    root = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)  # most of the time, and no part of the question
        source = make_set(root / "here", here)
        target = make_set(root / "there", already)
        mine, theirs = contents(source), contents(target)
        move_set(source, Cache(root / "there"))
        arrived = Cache(root / "there").load(source.name)
        assert contents(arrived) == mine | theirs
        assert stored_twice(source) == 0 == stored_twice(arrived) and arrived.verify() == []
        assert len(move_set(source, Cache(root / "there")).blocks) == 0


def test_what_arrives_is_what_was_there(features: FeatureSet, there: str, tmp_path: Path) -> None:
    done = move_set(features, Cache(there))
    assert (len(done.blocks), done.bytes, done.faults) == (len(features.records()), stored_bytes(features), ())
    require_same(features, there)
    records = {record.block: record for record in Cache(there).load(features.name).records()}
    for record in features.records():  # who made the rows, when and with what, comes along
        assert dict(records[record.block].written) == dict(record.written)
    move_set(Cache(there).load(features.name), Cache(tmp_path / "back"))
    require_same(features, tmp_path / "back")


def test_a_second_transfer_copies_nothing_and_reads_no_features(features: FeatureSet, there: str) -> None:
    move_set(features, Cache(there))
    seen: Counter[str] = Counter()

    def see(what: str, key: str, data: bytes) -> bytes:
        seen[f"{what} {key.split('/')[0 if what == 'read' else 2]}"] += 1
        return data

    source = FeatureSet(passing(features.objects, see), features.spec)
    done = move_set(source, seen_cache(there, see))
    assert len(done.blocks) == 0 and "read blocks" not in seen
    assert {name for name in seen if name.startswith(("write", "delete"))} == {"write used.json"}
    assert len(Cache(there).load(features.name).ledger.entries()) == 1


def test_only_what_is_lacking_or_damaged_there_is_copied(features: FeatureSet, there: str) -> None:
    move_set(features, Cache(there))
    first, second, third, _ = Cache(there).load(features.name).records()
    objects = Cache(there).load(features.name).objects
    objects.delete(f"records/{first.block}.json")
    objects.write(second.chunk, objects.read(second.chunk)[:-1])
    objects.write(f"records/{third.block}.json", b"{")
    plan = plan_transfer(features, Cache(there))
    assert {record.block for record in plan.blocks} == {first.block, second.block, third.block}
    assert plan.replaced.keys() == {second.block, third.block} and plan.there == 1
    assert len(run_transfer(plan, "push").blocks) == 3
    require_same(features, there)


def test_a_damaged_block_is_refused_by_name_and_the_others_go(
    features: FeatureSet, there: str, tmp_path: Path, epalm: Epalm
) -> None:
    whole = contents(features)
    flipped, cut, torn, kept = features.records()
    for record, damage in ((flipped, lambda data: bytes([data[0] ^ 1]) + data[1:]), (cut, lambda data: data[:-9])):
        features.objects.write(record.chunk, damage(features.objects.read(record.chunk)))
    features.objects.write(f"records/{torn.block}.json", b"{")
    done = epalm("cache", "push", "image", there, "--cache", tmp_path / "here", "--json")
    assert done.code == 3 and "Traceback" not in done.err
    refused = json.loads(done.out)["refused"]
    assert {fault["block"] for fault in refused} == {flipped.block, cut.block, torn.block}
    assert all(block in done.err for block in (flipped.block, cut.block, torn.block))
    arrived = Cache(there).load(features.name)
    assert contents(arrived) == {key: row for key, row in whole.items() if key[0] in kept.rows and key[1] in kept.views}
    assert arrived.verify() == []


def test_what_only_zarr_reads_is_made_anew(features: FeatureSet, tmp_path: Path) -> None:
    record = features.records()[0]
    features.objects.write(f"blocks/{record.folder}/zarr.json", b"{")
    features.objects.write(record.chunk, features.objects.read(record.chunk)[:-4] + b"\0" * 4)
    assert len(features.verify()) == 1
    assert move_set(features, Cache(tmp_path / "there")).faults == ()
    assert Cache(tmp_path / "there").load(features.name).verify() == []


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: bytes([data[0] ^ 16]) + data[1:]])
def test_damage_on_the_way_is_found_and_made_good_by_another_try(
    damage: Callable[[bytes], bytes], features: FeatureSet, tmp_path: Path
) -> None:
    lock = threading.Lock()
    damaged: list[str] = []

    def see(what: str, key: str, data: bytes) -> bytes:
        with lock:
            if what == "read" and key.endswith("c.0.0.0.0.0") and not damaged:
                damaged.append(key)
                return damage(data)
        return data

    source = FeatureSet(passing(features.objects, see), features.spec)
    done = move_set(source, Cache(tmp_path / "there"))
    (fault,) = done.faults
    assert fault.block in damaged[0] and len(done.blocks) == len(BLOCKS) - 1
    assert Cache(tmp_path / "there").load(features.name).verify() == []
    assert len(move_set(source, Cache(tmp_path / "there")).blocks) == 1
    require_same(features, tmp_path / "there")


def test_damage_done_by_the_other_side_is_found_there_and_mended(features: FeatureSet, tmp_path: Path) -> None:
    damaged: list[str] = []

    def see(what: str, key: str, data: bytes) -> bytes:
        if what == "write" and key.endswith("c.0.0.0.0.0") and not damaged:
            damaged.append(key)
            return bytes([data[0] ^ 16]) + data[1:]
        return data

    move_set(features, seen_cache(tmp_path / "there", see))
    arrived = Cache(tmp_path / "there").load(features.name)
    (fault,) = arrived.verify()
    assert fault.block in damaged[0]
    with pytest.raises(CacheError, match=fault.block):
        arrived.open()
    arrived.drop(fault.block, fault.record)
    assert len(move_set(features, Cache(tmp_path / "there")).blocks) == 1
    require_same(features, tmp_path / "there")


def test_a_set_of_that_name_but_another_spec_is_refused(features: FeatureSet, tmp_path: Path) -> None:
    make_set(tmp_path / "there", [], wider())
    sets = tmp_path / "there/sets"
    (sets / wider().name).rename(sets / features.name)
    with pytest.raises(CacheError, match="not the feature set of its name"):
        move_set(features, Cache(tmp_path / "there"))


def test_a_place_is_not_copied_to_itself(features: FeatureSet, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("here")
    for where in (tmp_path / "here", tmp_path / "link", f"file://{tmp_path}/here"):
        with pytest.raises(UsageError, match="is where it would be copied to"):
            plan_transfer(features, Cache(where))


def test_what_does_not_fit_does_not_begin(
    features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "there")
    monkeypatch.setattr(cache.objects, "free_bytes", lambda: 1000)
    with pytest.raises(CacheError, match="do not fit"):
        move_set(features, cache)
    assert not (tmp_path / "there").exists()


def test_names_of_both_sides_are_kept(features: FeatureSet, tmp_path: Path) -> None:
    there = make_set(tmp_path / "there", [Block([50])], data="other.jsonl")
    write_manifest(there.objects, Manifest("samples.jsonl", {"1.png": digest("old"), "mine.png": digest(50)}))
    move_set(features, Cache(tmp_path / "there"))
    names = {manifest.data: manifest.digests for manifest in read_manifests(there.objects)}
    assert names["other.jsonl"] == {"50.png": digest(50)}
    assert names["samples.jsonl"]["mine.png"] == digest(50) and names["samples.jsonl"]["1.png"] == digest(1)


def test_layers_and_tokens_that_were_asked_for_go_along(tmp_path: Path) -> None:
    described = {"tokens": "all", "layout": {"cls": True, "grid": [2, 2]}, "cls_token": "first", "token": "all"}
    here, there = Cache(tmp_path / "here"), Cache(tmp_path / "there")
    features = make_set(here.where, BLOCKS, replace(SPEC, encoder={**SPEC.encoder, **described}, tokens=5))
    here.remember("image", features.name, SPEC.layers[1:], DATA, "mean")
    move_set(features, there)
    latest = note_latest(there, there.load(features.name), here)
    assert latest and (latest.layers, latest.tokens) == (SPEC.layers[1:], "mean")


@pytest.mark.parametrize("through_a_file", [True, False])
def test_a_data_set_whose_path_is_not_utf_8_goes_along(through_a_file: bool, tmp_path: Path) -> None:
    """Python has such bytes as halves of characters, "\\udcff", in names of media and in that of the data set."""
    features = make_set(tmp_path / "here", BLOCKS, data="/data/\udcff.jsonl")
    write_manifest(features.objects, Manifest("/data/\udcff.jsonl", {"\udce9.png": digest(1)}))
    there = Cache(tmp_path / "there")
    move_set(features, there)
    if through_a_file:
        export_set(features, tmp_path / "f.h5")
        there = Cache(tmp_path / "imported")
        import_set(there, tmp_path / "f.h5")
    (arrived,) = there.sets()
    assert read_manifests(arrived.objects) == read_manifests(features.objects)
    latest = note_latest(there, arrived)
    assert latest and latest.data == "/data/\udcff.jsonl"
