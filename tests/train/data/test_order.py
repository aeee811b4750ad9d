"""Epochs that go through features by blocks: a pure function of seed, epoch and blocks, however it is read."""

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epalm.cache import reader
from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.errors import CacheError, UsageError
from epalm.recipes.config import Config, load_config
from epalm.samples import Dataset, Modality
from epalm.train.data import order
from epalm.train.data.batches import Batch, Batches, training_items
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.data.order import shuffled, shuffled_blocks, without_first
from epalm.train.data.text import TextFormat, load_text_format
from epalm.train.lm.load import load_lm
from epalm.train.lm.processes import Processes
from epalm.train.material import Material
from epalm.train.request import TrainRequest
from epalm.train.runs.run_folder import RunFolder
from epalm.train.setup import Setup, features_by_blocks, set_up
from tests.cache.test_feature_set import SPEC
from tests.train_host import Numbered

MEDIA, ROWS, VIEWS = 60, 5, (0, 1, 2)
WIDE = replace(SPEC, tokens=4)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _items(stretches: Sequence[Sequence[np.ndarray]]) -> list[int]:
    return [item for stretch in stretches for group in stretch for item in group.tolist()]


def test_full_shuffling_is_that_of_the_versions_before() -> None:
    """Its numbers are those of seeds: runs that were begun with them go on."""
    lengths = np.arange(11) % 3
    stretch = shuffled(np.arange(11), 4, lengths, _rng(7))
    rng = _rng(7)
    drawn = rng.permutation(11)
    drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
    groups = [drawn[at : at + 4] for at in range(0, 11, 4)]
    expected = [groups[place].tolist() for place in rng.permutation(3)]
    assert [group.tolist() for group in stretch] == expected


@given(
    blocks=st.lists(st.integers(0, 9), min_size=1, max_size=200),
    size=st.integers(1, 9),
    window=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_item_comes_once_in_full_batches_and_among_its_blocks(
    blocks: list[int], size: int, window: int, seed: int
) -> None:
    of_items, sizes, lengths = np.array(blocks), np.full(10, 100), np.arange(len(blocks)) % 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "_WINDOW", 100 * window)
        stretches = shuffled_blocks(of_items, sizes, size, lengths, _rng(seed))
        again = shuffled_blocks(of_items, sizes, size, lengths, _rng(seed))
    assert _items(stretches) == _items(again)
    assert sorted(_items(stretches)) == list(range(len(blocks)))
    counts = [len(group) for stretch in stretches for group in stretch]
    assert len(counts) == math.ceil(len(blocks) / size)  # steps an epoch, as without blocks
    assert sorted(counts, reverse=True)[:-1] == [size] * (len(counts) - 1)
    used = [{blocks[item] for item in _items([stretch])} for stretch in stretches]
    for one, after in pairwise(used):
        assert len(one & after) <= 1  # what did not fill a batch
    # What did not fill a batch may be of several stretches that filled none.
    assert max(map(len, used)) <= window + size
    for first in (0, 1, len(counts) // 2, len(counts)):
        left = without_first(stretches, first)
        assert _items(left) == _items([[*chain(*stretches)][first:]])


def test_epochs_read_blocks_in_other_orders_and_together_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_WINDOW", 300)
    blocks, lengths = np.arange(400) // 10, np.zeros(400, int)
    met: set[tuple[int, int]] = set()
    for epoch in range(20):
        stretches = shuffled_blocks(blocks, np.full(40, 100), 8, lengths, np.random.default_rng([0, epoch]))
        for stretch in stretches:
            used = sorted({int(blocks[item]) for group in stretch for item in group})
            met |= {(one, other) for one in used for other in used if one < other}
    assert len(met) > 0.4 * 40 * 39 / 2  # pairs; of a fixed order 60 of 780


@pytest.fixture(scope="module")
def text() -> TextFormat:
    return load_text_format("playground", load_lm("playground"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cache, FeatureSet, Dataset]:
    """Questions about media in blocks of a few rows and of several views, which lie in blocks of their own."""
    root = tmp_path_factory.mktemp("world")
    cache = Cache(root / "cache")
    features = cache.feature_set(WIDE, recorded={})
    digests = []
    with (root / "samples.jsonl").open("w") as file:
        for number in range(MEDIA):
            content = b"medium %d" % number
            (root / f"{number}.png").write_bytes(content)
            digests.append(hashlib.sha256(content).hexdigest())
            sample = {"modality": "image", "media": f"{number}.png", "task": "qa", "split": "train"}
            prompt, answers = "what is it " * (1 + number % 4), {"a": 1.0, "b": 0.5}
            for question in range(1 + number % 3):
                row = {**sample, "id": f"{number}-{question}", "prompt": prompt, "answers": answers}
                file.write(json.dumps(row) + "\n")
    for view in VIEWS:
        for start in range(0, MEDIA, ROWS):
            features.write_block(digests[start : start + ROWS], _values(start, view, WIDE), (view,))
    return cache, features, load_dataset(str(root / "samples.jsonl"), Modality.IMAGE)


def _values(start: int, view: int, spec: FeatureSpec) -> np.ndarray:
    rng = np.random.default_rng([start, view])
    return rng.normal(size=(ROWS, 1, *spec.row_shape)).astype(spec.stored_dtype)


def _features(world: tuple[Cache, FeatureSet, Dataset], *, memory: int = 1 << 40) -> CachedFeatures:
    cache, features, dataset = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "available_memory", lambda: memory)
        made = CachedFeatures(cache, features.name, dataset, dataset.samples)
    assert made.draw_from(dataset.samples, seed=3) == VIEWS[1:]
    return made


def _batches(text: TextFormat, features: CachedFeatures, dataset: Dataset, **options: Any) -> Batches:
    items = training_items(dataset.samples)
    settings = {"layers": 3, "batch_size": 8, "seed": 3, "by_blocks": features, **options}
    return Batches(items, text, features, **settings)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_WINDOW", 4 * ROWS * WIDE.row_bytes)


def _same(ours: Batch, theirs: Batch) -> bool:
    return all(torch.equal(getattr(ours, one), getattr(theirs, one)) for one in ("features", "input_ids", "labels"))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_memory_threads_or_where_an_epoch_is_taken_up(
    workers: int, text: TextFormat, world: tuple[Cache, FeatureSet, Dataset]
) -> None:
    dataset = world[2]
    held, streamed = _features(world), _features(world, memory=0)
    assert held.fits and not streamed.fits and held.order_key == streamed.order_key
    for epoch, augmented, first in ((0, True, 0), (1, True, 0), (1, True, 7), (0, False, 0)):
        expected = list(_batches(text, held, dataset).epoch(epoch, augmented=augmented, first=first))
        ahead = _batches(text, streamed, dataset, workers=workers)
        read = list(ahead.epoch(epoch, augmented=augmented, first=first))
        assert len(read) == len(expected) == math.ceil(2 * MEDIA / 8) - first
        assert all(map(_same, read, expected))
    one, other = (next(iter(_batches(text, held, dataset).epoch(epoch))) for epoch in (0, 1))
    assert not torch.equal(one.features, other.features)


def test_an_epoch_by_blocks_has_the_features_of_its_samples(
    text: TextFormat, world: tuple[Cache, FeatureSet, Dataset]
) -> None:
    """Gathered one by one, each is the one of the cache; every sample is there once."""
    dataset, streamed = world[2], _features(world, memory=0)
    alone = {streamed.gather([sample], epoch=4)[0].tobytes(): sample.media for sample in dataset.samples}
    seen = [row.numpy().tobytes() for batch in _batches(text, streamed, dataset).epoch(4) for row in batch.features]
    assert len(seen) == len(dataset.samples) and set(seen) == set(alone)


def test_processes_share_an_epoch_by_blocks(text: TextFormat, world: tuple[Cache, FeatureSet, Dataset]) -> None:
    dataset, streamed = world[2], _features(world, memory=0)
    whole = list(_batches(text, streamed, dataset).epoch(2))
    shares = [list(_batches(text, streamed, dataset, processes=Processes(rank, 2)).epoch(2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        rows = sorted(row.numpy().tobytes() for part in parts for row in part.features[: part.own_samples])
        assert rows == sorted(row.numpy().tobytes() for row in batch.features)


def test_few_blocks_are_mapped_at_a_time_and_none_in_the_end(
    text: TextFormat, world: tuple[Cache, FeatureSet, Dataset]
) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not say what is mapped")
    cache, _, dataset = world
    streamed = _features(world, memory=0)

    def mapped() -> int:
        return len({line.split()[-1] for line in maps.read_text().splitlines() if str(cache.where) in line})

    assert not mapped()
    most = 0
    with closing(_batches(text, streamed, dataset).epoch(0)) as batches:
        for _ in batches:
            most = max(most, mapped())
    assert 0 < most <= 2 * 4 + 3 < MEDIA / ROWS * len(VIEWS)  # two windows, and what is carried over
    assert not mapped()
    with closing(_batches(text, streamed, dataset, workers=2).epoch(0)) as batches:
        list(islice(batches, 2))
    assert not mapped()  # let go in the middle, as by Ctrl-C


def test_a_training_keeps_its_order_where_there_is_more_memory(
    world: tuple[Cache, FeatureSet, Dataset], tmp_path: Path
) -> None:
    dataset = world[2]

    config = load_config("playground", ["model.tokens=3", "model.start=0", "model.end=3"])
    held, streamed = _features(world), _features(world, memory=0)

    def loaded(features: CachedFeatures) -> Setup:
        request, parts = TrainRequest(device="cpu", runs=tmp_path / "none"), (dataset.samples, dataset.samples[:5])
        return set_up(Material(request, config, dataset, Modality.IMAGE, features, *parts))

    large, small = loaded(held), loaded(streamed)
    assert small.batches.by_blocks and small.validation.by_blocks and small.config.data.shuffle == "blocks"
    assert not large.batches.by_blocks and large.config.data.shuffle == "full"
    assert set(small.inputs["parts"]) - set(large.inputs["parts"]) == {"blocks"}
    assert [warning for warning in small.warnings if "by blocks" in warning]
    for name, one in (("large", large), ("small", small)):
        RunFolder.create(tmp_path / name, "image").begin(one.config, one.inputs)

    def by_blocks(config: Config, features: FeatureSource, runs: str) -> bool:
        return features_by_blocks(config, features, large.inputs["parts"], tmp_path / runs) is not None

    for features in (held, streamed):
        assert by_blocks(config, features, "small") and not by_blocks(config, features, "large")
        for one in (large, small):  # as set, whatever the memory and other runs
            assert by_blocks(one.config, features, "small") == by_blocks(one.config, features, "large")
            assert by_blocks(one.config, features, "none") == (one is small)
    with pytest.raises(UsageError, match="cache") as caught:
        by_blocks(small.config, Numbered(), "none")
    assert "--from-cache" in (caught.value.hint or "")
    assert not by_blocks(config, Numbered(), "none")


def test_what_is_decoded_comes_in_the_order_of_blocks(world: tuple[Cache, FeatureSet, Dataset]) -> None:
    dataset, held, streamed = world[2], _features(world), _features(world, memory=0)
    samples = dataset.samples[::-1]
    ((part, gather),) = held.in_blocks(samples)
    assert part == samples
    whole = {sample.id: row.tobytes() for sample, row in zip(part, gather(part), strict=True)}
    parts = [(part, [row.tobytes() for row in gather(part)]) for part, gather in streamed.in_blocks(samples)]
    assert len(parts) == math.ceil(MEDIA / ROWS / 4)
    found = [(sample.id, row) for part, rows in parts for sample, row in zip(part, rows, strict=True)]
    assert len(found) == len(samples) and dict(found) == whole
    blocks, _ = streamed.blocks_of([sample for part, _ in parts for sample in part])
    assert (np.diff(blocks) >= 0).all()


def test_damage_is_found_before_it_is_trained_on(text: TextFormat, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"0")
    row = {"id": "0", "modality": "image", "media": "0.png", "task": "qa", "prompt": "?", "answers": {"a": 1.0}}
    (tmp_path / "samples.jsonl").write_text(json.dumps({**row, "split": "train"}) + "\n")
    cache, dataset = Cache(tmp_path / "cache"), load_dataset(str(tmp_path / "samples.jsonl"), Modality.IMAGE)
    features = cache.feature_set(WIDE, recorded={})
    features.write_block([hashlib.sha256(b"0").hexdigest()], _values(0, 0, WIDE)[:1])
    (record,) = features.records()
    chunk = Path(features.where) / record.chunk
    data = bytearray(chunk.read_bytes())
    data[3] ^= 1
    chunk.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "available_memory", lambda: 0)
        streamed = CachedFeatures(cache, features.name, dataset, dataset.samples)
    with pytest.raises(CacheError, match=record.block):
        list(_batches(text, streamed, dataset, workers=1).epoch(0, augmented=False))
