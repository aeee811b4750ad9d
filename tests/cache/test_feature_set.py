"""Feature sets: named by what decides their numbers, committed block by block, with a ledger that survives kills."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import LEDGER, Entry, Ledger
from epalm.cache.objects.local import LocalObjects
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.errors import CacheError, UsageError

LAYERS, TOKENS, WIDTH = 3, 2, 5
SPEC = FeatureSpec(
    modality="image",
    encoder={"kind": "vit", "weights": "abc", "architecture": {"depth": 6, "width": WIDTH}},
    layers=(3, 4, 5),
    width=WIDTH,
    preprocessing={"size": [4, 4], "mean": [0.5, 0.5, 0.5]},
    augmentation=None,
    compute={"dtype": "float32", "autocast": None},
    stored_dtype="float16",
    version=1,
    tokens=TOKENS,
)


def feature_set(root: Path) -> FeatureSet:
    return Cache(root).feature_set(SPEC, recorded={"torch": "2"})


def folder(features: FeatureSet) -> Path:
    return Path(features.where)


def load(features: FeatureSet) -> FeatureSet:
    """The same set as another process finds it."""
    return FeatureSet.load(features.objects, features.name)


def values(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 1, LAYERS, TOKENS, WIDTH)).astype(np.float16)


def names(rows: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{row}" for row in range(rows)]


@pytest.mark.parametrize("encoder", [SPEC.encoder, {"kind": "ast", "architecture": {"num_hidden_layers": 6}}], ids=str)
def test_layers_are_chosen_of_those_stored_whatever_the_encoder(encoder: dict[str, Any], tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    features = cache.feature_set(replace(SPEC, encoder=encoder, layers=(0, 1, 3)), recorded={})
    assert [cache.chosen_layers(features, asked) for asked in ("last:2", "all", "0-1")] == [(1, 3), (0, 1, 3), (0, 1)]
    for asked in ("last:4", "5", "1-3"):
        with pytest.raises(UsageError, match="there are blocks 0, 1, 3"):
            cache.chosen_layers(features, asked)


def test_the_order_of_keys_and_the_kind_of_sequence_change_no_name() -> None:
    turned = replace(SPEC, encoder=dict(reversed(list(SPEC.encoder.items()))))
    assert turned.name == SPEC.name
    assert FeatureSpec.from_json(json.loads(SPEC.to_bytes())) == SPEC
    assert SPEC.name == f"image-vit-{SPEC.fingerprint[:12]}"


@pytest.mark.parametrize(
    "change",
    [
        {"modality": "video"},
        {"encoder": {**SPEC.encoder, "weights": "abd"}},
        {"layers": (3, 4)},
        {"width": 6},
        {"preprocessing": {**SPEC.preprocessing, "mean": [0.5, 0.5, 0.51]}},
        {"augmentation": {"flip": True}},
        {"compute": {"dtype": "float32", "autocast": "bfloat16"}},
        {"stored_dtype": "float32"},
        {"version": 2},
    ],
)
def test_whatever_decides_the_numbers_decides_the_name(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).fingerprint != SPEC.fingerprint


def test_what_was_written_is_there_under_its_digests(tmp_path: Path) -> None:
    features, written = feature_set(tmp_path), values(4)
    assert features.write_block(names(4), written)
    (record,) = features.records()
    assert record.rows == tuple(names(4)) and record.views == (0,) and record.bytes == written.nbytes
    assert record.written["recorded"] == {"torch": "2"}
    assert features.rows() == set(names(4))
    np.testing.assert_array_equal(features.open().gather(np.arange(4)), written[:, 0])


def test_a_block_is_a_zarr_array_of_one_chunk_that_zarr_reads(tmp_path: Path) -> None:
    import zarr

    features, written = feature_set(tmp_path), values(4)
    written[2] = 0  # an all-zero row is stored as well
    features.write_block(names(4), written)
    (record,) = features.records()
    array = zarr.open_array(folder(features) / "blocks" / record.folder, mode="r")
    np.testing.assert_array_equal(np.asarray(array[...]), written)
    assert array.chunks == array.shape and np.isnan(float(array.fill_value))


def test_the_first_writer_of_a_block_wins(tmp_path: Path) -> None:
    features = feature_set(tmp_path)
    assert features.write_block(names(2), values(2, seed=1))
    assert not features.write_block(names(2), values(2, seed=2))
    np.testing.assert_array_equal(features.open().gather(np.arange(2)), values(2, seed=1)[:, 0])
    assert len(list((folder(features) / "blocks").glob("*/"))) == 1


def _write(root: Path, seed: int) -> None:
    features = feature_set(root)
    for block in range(4):
        features.write_block(names(3, f"b{block}-"), values(3, seed))
    for line in range(20):
        features.ledger.add_all([Entry(media=f"{seed}-{line}", digest=None, error="bad", hint=None)])


def test_writers_in_several_processes_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    features = feature_set(tmp_path)
    assert [process.exitcode for process in processes] == [0] * 4
    assert not features.verify()
    assert sorted(record.rows for record in features.records()) == [tuple(names(3, f"b{n}-")) for n in range(4)]
    assert len(features.ledger.entries()) == 80
    assert len(list((folder(features) / "blocks").glob("*/"))) == 4  # the losers' copies are gone


@pytest.mark.parametrize(
    ("digests", "wrong"),
    [
        (names(2), values(3)),
        (names(2), values(2).astype(np.float32)),
        (["a", "a"], values(2)),
        ([], values(0)),
    ],
)
def test_what_does_not_fit_is_refused(digests: list[str], wrong: np.ndarray, tmp_path: Path) -> None:
    features = feature_set(tmp_path)
    with pytest.raises(ValueError, match=r"block needs|is not"):
        features.write_block(digests, wrong)
    assert not features.records()


def test_a_block_without_a_record_does_not_exist(tmp_path: Path) -> None:
    features = feature_set(tmp_path)
    features.write_block(names(2), values(2))
    features.write_block(names(2, "e"), values(2))
    record = features.records()[0]
    (folder(features) / "records" / f"{record.block}.json").unlink()
    again = Cache(tmp_path).find(SPEC.name)
    assert again.rows() == {name for other in again.records() for name in other.rows}
    assert not again.rows() & set(record.rows)
    assert record.rows[0] not in again.open().digests


def test_sets_are_found_by_name_or_how_it_begins(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.sets() == [] and cache.existing(SPEC) is None
    feature_set(tmp_path)
    cache.feature_set(replace(SPEC, version=2), recorded={})
    assert len(cache.sets()) == 2
    assert cache.find(SPEC.name[:-2]).spec == SPEC
    for name in ("image-vit", "audio"):
        with pytest.raises(CacheError, match="named"):
            cache.find(name)


def test_the_latest_extraction_is_remembered(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(CacheError, match="nothing"):
        cache.latest()
    feature_set(tmp_path)
    cache.remember("image", "a", (1, 2), "data.jsonl")
    cache.remember("audio", "b", (3,), "playground")
    assert cache.latest().modality == "audio"
    latest = cache.latest("image")
    assert (latest.set, latest.layers, latest.data) == ("a", (1, 2), "data.jsonl")


def test_the_last_entry_of_a_medium_counts_and_torn_lines_do_not(tmp_path: Path) -> None:
    ledger = Ledger(LocalObjects(tmp_path))
    assert ledger.entries() == []
    ledger.add_all([Entry(media="a\nb", digest="1", error="first", hint=None)])
    ledger.add_all([Entry(media="a\nb", digest="1", error="second", hint="do this")])
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"media": "torn')
    ledger.add_all([Entry(media="c", digest=None, error="third", hint=None)])
    assert [(entry.media, entry.error) for entry in ledger.entries()] == [("a\nb", "second"), ("c", "third")]
    assert set(ledger.digests()) == {"1"}
