"""Augmented views: stored beside the plain one, functions of the medium alone, drawn anew each epoch."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.samples import Dataset, Modality, Sample, Task
from epalm.train.features import CachedFeatures
from epalm.train.view_draw import draw_views
from tests.conftest import Epalm
from tests.trials import TEST, TRAIN, Trial, make_trial

NAMES = [f"{number:064x}/{number}" for number in range(2_000)]


@pytest.fixture(scope="module", params=[Modality.IMAGE, Modality.AUDIO])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Modality, Path]:
    root = tmp_path_factory.mktemp("trial")
    make_trial(root, request.param)
    return request.param, root


@pytest.fixture
def trial(made: tuple[Modality, Path], epalm: Epalm, tmp_path: Path) -> Trial:
    shutil.copytree(made[1], tmp_path / "trial")
    return Trial(epalm, made[0], tmp_path / "trial")


def _set(where: Path) -> FeatureSet:
    (features,) = Cache(where).sets()
    return features


def _rows(where: Path) -> dict[tuple[str, int], bytes]:
    """(digest, view) → its row's bytes."""
    reader = _set(where).open()
    return {
        (digest, view): reader.gather(np.array([row]), view=view).tobytes()
        for row, digest in enumerate(reader.digests)
        for view in range(8)
        if reader.has(row, view=view)
    }


def test_the_training_split_alone_gets_augmented_views(trial: Trial) -> None:
    rows = _rows(trial.cache)
    assert sum(view == 0 for _, view in rows) == TRAIN + TEST
    assert sum(view == 1 for _, view in rows) == TRAIN
    assert all(rows[digest, 1] != rows[digest, 0] for digest, view in rows if view == 1)


def test_more_views_are_appended_and_what_is_there_stays(trial: Trial) -> None:
    before = {path: path.read_bytes() for path in trial.cache.rglob("c.0.0.0.0")}
    assert trial.extract("--views", 3) == (TEST, TRAIN)
    assert all(path.read_bytes() == data for path, data in before.items())
    rows = _rows(trial.cache)
    assert sum(view > 0 for _, view in rows) == 3 * TRAIN
    assert trial.extract("--views", 2) == (TRAIN + TEST, 0)
    assert not _set(trial.cache).verify()


def test_views_depend_on_nothing_but_the_medium(trial: Trial) -> None:
    """Another order, batch size, number of processes and way there: the same rows, to the bit or nearly."""
    trial.extract("--views", 3)
    samples = trial.samples
    trial.samples = samples[::-1]
    other = trial.root / "other"
    trial.extract("--views", 3, "--cache", other, "--batch-size", 3, "--workers", 2, "--block-rows", 2)
    first, second = _rows(trial.cache), _rows(other)
    assert first.keys() == second.keys()
    for key, row in first.items():
        a, b = (np.frombuffer(one, np.float16).astype(np.float32) for one in (row, second[key]))
        np.testing.assert_allclose(a, b, atol=2e-2)


def test_without_the_split_every_medium_gets_views(trial: Trial) -> None:
    assert trial.extract("--views-split", "elsewhere") == (TRAIN, TEST)


def test_without_augmentation_there_are_no_views(trial: Trial) -> None:
    done = trial.epalm(
        "extract", "-m", trial.modality, "--data", trial.world, "--weights", trial.weights, "--cache", trial.cache,
        "--views", 2, "--spec-augment", "off",
    )  # fmt: skip
    assert done.code == 1 and "augmentation is off" in done.err


@pytest.mark.parametrize("views", [(1,), (1, 2), (1, 2, 3, 4)])
def test_drawn_views_are_even_and_change_with_the_epoch(views: tuple[int, ...]) -> None:
    drawn = np.stack([draw_views(NAMES, views, seed=1, epoch=epoch) for epoch in range(4)])
    assert set(drawn.flat) == set(views)
    for view in views:
        assert abs((drawn == view).mean() - 1 / len(views)) < 0.05
    if len(views) > 1:
        same = (drawn[0] == drawn[1]).mean()
        assert abs(same - 1 / len(views)) < 0.05
        assert (draw_views(NAMES, views, seed=2, epoch=0) != drawn[0]).any()


def test_a_drawn_view_does_not_depend_on_the_others_in_the_batch() -> None:
    order = np.random.default_rng(0).permutation(len(NAMES))
    whole = draw_views(NAMES, (1, 2, 3), seed=0, epoch=5)
    parts = np.concatenate(
        [draw_views([NAMES[n] for n in part], (1, 2, 3), seed=0, epoch=5) for part in np.split(order, 8)]
    )
    np.testing.assert_array_equal(parts, whole[order])


def _open(trial: Trial) -> tuple[CachedFeatures, Dataset, list[Sample]]:
    dataset = load_dataset(str(trial.world), trial.modality)
    cache = Cache(trial.cache)
    samples = [sample for sample in dataset.split("train") if sample.task is Task.QA]
    return CachedFeatures(cache.sets()[0], cache, dataset, samples), dataset, samples


def test_training_draws_and_evaluation_takes_the_plain_view(trial: Trial) -> None:
    trial.extract("--views", 3)
    features, _, samples = _open(trial)
    plain = features.gather(samples)
    np.testing.assert_array_equal(features.gather(samples, epoch=0), plain)  # until it is told to draw
    assert features.draw_from(samples, seed=0) == (1, 2, 3)
    np.testing.assert_array_equal(features.gather(samples), plain)
    epochs = [features.gather(samples, epoch=epoch) for epoch in range(6)]
    assert all((drawn != plain).any(axis=(1, 2)).all() for drawn in epochs)
    assert any((epochs[0] != drawn).any() for drawn in epochs[1:])
    np.testing.assert_array_equal(features.gather(samples[::-1], epoch=2), epochs[2][::-1])


def test_training_says_what_it_draws_and_warns_of_a_single_view(trial: Trial) -> None:
    words = ("train", "--from-cache", "-m", trial.modality, "--data", trial.world, "--cache", trial.cache, "--plan")
    trial.extract()
    augmented = ("--recipe", "playground", "--set", "data.augment=true")
    drawn = trial.epalm(*words, *augmented)
    assert drawn.code == 0, drawn.err
    assert "each epoch" in drawn.err and "warning" not in drawn.err
    plain = trial.epalm(*words, "--recipe", "playground")
    assert "view 0" in plain.err and "warning" not in plain.err
    other = trial.root / "other"
    trial.extract("--views", 0, "--cache", other)
    warned = trial.epalm(*words, *augmented, "--cache", other)
    assert "warning" in warned.err and "--views" in warned.err


def test_layers_of_a_wider_set_are_those_of_a_narrow_one(trial: Trial) -> None:
    assert trial.extract("--layers", "2,3") == (TRAIN + TEST, 0)  # layers 1 to 3 are there
    narrow = trial.root / "narrow"
    trial.extract("--layers", "2,3", "--cache", narrow)
    wide, other = Cache(trial.cache), Cache(narrow)
    dataset = load_dataset(str(trial.world), trial.modality)
    samples = dataset.samples
    chosen = CachedFeatures(wide.sets()[0], wide, dataset, samples, layers=(2, 3))
    exact = CachedFeatures(other.sets()[0], other, dataset, samples)
    assert (chosen.layers, exact.layers) == (2, 2)
    np.testing.assert_array_equal(chosen.gather(samples), exact.gather(samples))
    assert wide.latest(trial.modality).layers == (2, 3)
