"""Augmented views as they are stored: functions of medium, number and seed alone, added without touching others."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.extract.pipeline import ExtractSummary
from epalm.samples import Dataset, Modality, Sample, Task
from tests import crash_host
from tests.conftest import Epalm
from tests.crash_host import Synthetic
from tests.extractions import Machine, extract_features
from tests.trials import TEST, TRAIN, Trial, make_trial

LAYERS = (0, 2)
Rows = dict[tuple[str, int], bytes]  # (digest, view) → values


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for number in range(23):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def _dataset(media: Path, splits: Sequence[str] = ("train",), names: Sequence[str] | None = None) -> Dataset:
    """The folder's pictures, whose splits take turns."""
    names = sorted(path.name for path in media.iterdir()) if names is None else names
    turns = [splits[place % len(splits)] for place in range(len(names))]
    samples = [
        Sample(name, Modality.IMAGE, name, Task.CAPTION, split) for name, split in zip(names, turns, strict=True)
    ]
    return Dataset("views", media, tuple(samples))


def _run(
    dataset: Dataset,
    cache: Path,
    *,
    batch: int = 4,
    workers: int = 0,
    block: int = 8,
    layers: tuple[int, ...] = LAYERS,
    **options: Any,
) -> ExtractSummary:
    encoder = Synthetic()
    machine = Machine(batch, workers, block)
    return extract_features(dataset, Modality.IMAGE, encoder, layers, Cache(cache), machine=machine, **options)


def _set(cache: Path) -> FeatureSet:
    (features,) = Cache(cache).sets()
    return features


def _rows(cache: Path) -> Rows:
    features = _set(cache)
    assert not features.verify()
    reader = features.open()
    return {
        (digest, view): reader.gather(reader.rows_of([digest]), view=view).tobytes()
        for view in features.views()
        for digest in features.rows(view)
    }


def test_each_medium_gets_the_plain_view_and_those_asked_for(media: Path, tmp_path: Path) -> None:
    _run(_dataset(media), tmp_path / "cache", views=3)
    features, rows = _set(tmp_path / "cache"), _rows(tmp_path / "cache")
    assert features.views() == (0, 1, 2, 3)
    assert len(rows) == 4 * 23
    assert len(set(rows.values())) == len(rows)  # no two alike
    _run(_dataset(media), tmp_path / "plain")
    assert _rows(tmp_path / "plain").items() <= rows.items()


def test_views_added_later_touch_nothing_that_is_there(media: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _run(_dataset(media), cache, views=1)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.glob("sets/*/[rb]*s/**/*.*")}
    assert len(before) > 6
    assert _run(_dataset(media), cache, views=3).encoded == 23
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    new = [record.views for record in _set(cache).records() if record.views != (0, 1)]
    assert set(new) == {(2, 3)}
    _run(_dataset(media), tmp_path / "at once", views=3)
    assert _rows(cache) == _rows(tmp_path / "at once")
    for fewer in (3, 2, 0):
        assert _run(_dataset(media), cache, views=fewer).hits == 23


def test_views_depend_on_nothing_but_medium_number_and_seed(media: Path, tmp_path: Path) -> None:
    _run(_dataset(media), tmp_path / "first", views=2, view_seed=7)
    expected = _rows(tmp_path / "first")
    names = sorted(path.name for path in media.iterdir())
    others: list[tuple[Dataset, dict[str, Any]]] = [
        (_dataset(media, names=names[::-1]), {}),
        (_dataset(media, names=names[::-1]), {"batch": 1, "block": 3}),
        (_dataset(media), {"batch": 50, "block": 500}),
        (_dataset(media), {"workers": 2}),
    ]
    for number, (dataset, how) in enumerate(others):
        _run(dataset, tmp_path / f"{number}", views=2, view_seed=7, **how)
        assert _rows(tmp_path / f"{number}") == expected, how
    moved = shutil.copytree(media, tmp_path / "moved")
    for path in list(moved.iterdir()):
        path.rename(moved / f"another name of {path.name}")
    _run(_dataset(moved), tmp_path / "elsewhere", views=2, view_seed=7)
    assert _rows(tmp_path / "elsewhere") == expected


def test_another_process_gives_the_same_views_and_another_seed_others(media: Path, tmp_path: Path) -> None:
    environment = dict(os.environ, PYTHONHASHSEED="5", PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, crash_host.__file__, str(media), str(tmp_path / "there"), json.dumps([{"views": 1}])]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    _run(_dataset(media), tmp_path / "here", views=1)
    here = _rows(tmp_path / "here")
    assert _rows(tmp_path / "there") == here
    _run(_dataset(media), tmp_path / "other", views=1, view_seed=1)
    other = _rows(tmp_path / "other")
    assert [key for key in here if here[key] != other[key]] == [key for key in here if key[1] == 1]


def test_only_the_training_split_gets_augmented_views(media: Path, tmp_path: Path) -> None:
    dataset = _dataset(media, ("train", "val", "test"))
    training = {sample.media for sample in dataset.split("train")}
    _run(dataset, tmp_path / "cache", views=2)
    index = Cache(tmp_path / "cache").media
    digests = {index.digest(dataset.locate(name)) for name in training}
    features = _set(tmp_path / "cache")
    assert features.rows(1) == features.rows(2) == digests
    assert len(features.rows(0)) == 23
    assert _run(dataset, tmp_path / "cache", views=2).encoded == 0
    _run(dataset, tmp_path / "cache", views=2, views_split="val")
    assert len(_set(tmp_path / "cache").rows(2)) == 16


@pytest.mark.parametrize("splits", [("test",), ("a", "b")])
def test_without_such_a_split_all_media_get_them(splits: tuple[str, ...], media: Path, tmp_path: Path) -> None:
    _run(_dataset(media, splits), tmp_path / "cache", views=1)
    assert len(_set(tmp_path / "cache").rows(1)) == 23


@pytest.mark.parametrize("order", [("test", "train"), ("train", "test")])
def test_a_picture_that_two_splits_hold_gets_them(order: tuple[str, str], media: Path, tmp_path: Path) -> None:
    """Under two names, and whichever of them comes first."""
    shutil.copytree(media, tmp_path / "media")
    (tmp_path / "media/copy.png").write_bytes((tmp_path / "media/00.png").read_bytes())
    dataset = _dataset(tmp_path / "media", order, names=["00.png", "copy.png"])
    assert _run(dataset, tmp_path / "cache", views=2).encoded == 1
    assert _set(tmp_path / "cache").views() == (0, 1, 2)
    assert _run(dataset, tmp_path / "cache", views=2).encoded == 0


@pytest.mark.parametrize("augmented", ["exact", "wider"])
def test_of_two_sets_that_serve_the_one_that_has_the_views_is_taken(
    augmented: str, media: Path, tmp_path: Path
) -> None:
    dataset, cache = _dataset(media), tmp_path / "cache"
    _run(dataset, cache, layers=(2,), views=2 if augmented == "exact" else 0)
    # A wider set would serve the narrow request: it is made where the narrow one cannot.
    _run(dataset, cache, layers=(0, 1, 2), views=2 if augmented == "wider" else 0)
    done = _run(dataset, cache, layers=(2,), views=2)
    assert (done.hits, done.encoded) == (23, 0)
    assert Cache(cache).load(done.set_name).spec.layers == ((2,) if augmented == "exact" else (0, 1, 2))


@pytest.mark.parametrize("modality", Modality)
def test_a_real_encoder_of_each_modality(modality: Modality, tmp_path: Path, epalm: Epalm) -> None:
    """As typed: with processes that decode or without, in other batches, the views are the same but for rounding."""
    make_trial(tmp_path / "trial", modality)
    trial = Trial(epalm, modality, tmp_path / "trial")
    first = _set(trial.cache).open()
    assert len(_set(trial.cache).rows(0)) == TRAIN + TEST and len(_set(trial.cache).rows(1)) == TRAIN
    trial.cache = tmp_path / "again"
    assert trial.extract("--workers", 2, "--batch-size", 2) == (0, TRAIN + TEST)
    again = _set(trial.cache).open()
    for view in (0, 1):
        digests = sorted(_set(trial.cache).rows(view))
        one, other = (reader.gather(reader.rows_of(digests), view=view) for reader in (first, again))
        np.testing.assert_allclose(one, other, atol=4e-3)
    plain, drawn = (first.gather(first.rows_of(digests), view=view).astype(np.float32) for view in (0, 1))
    assert (np.abs(plain - drawn).max(axis=(1, 2)) > 0.01).all()
    done = epalm("extract", "-m", modality, "--data", trial.world, "--weights", trial.weights, "--views", 1,
                 "--layers", "last:3", "--workers", 0, "--cache", trial.cache)  # fmt: skip
    assert f"view 0 of all media, view 1 of {TRAIN}" in done.err
