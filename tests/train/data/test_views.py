"""Views and layers in training: a draw for each sample and epoch, view 0 to validate, and the choice is said."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.extract.encoders.registry import EncoderChoice, build_encoder
from epalm.extract.live import LiveFeatures
from epalm.extract.spec_builder import feature_spec
from epalm.recipes.config import load_config
from epalm.samples import Dataset, Modality, Sample, Task
from epalm.train.data.features import CachedFeatures, draw_views
from epalm.train.material import Material
from epalm.train.request import TrainRequest
from epalm.train.run import train
from epalm.train.runs.run_folder import RunFolder
from epalm.train.setup import set_up
from tests.conftest import Done
from tests.trials import Trial, latest_tensors

NAMES = [f"{number:064x}/{number}" for number in range(6000)]
SHORT = ("--recipe", "playground", "--set", "optim.max_steps=5", "--set", "optim.batch_size=4")


def _train(trial: Trial, *words: object) -> Done:
    places = ("-m", "image", "--data", trial.world, "--cache", trial.cache)
    done = trial.epalm("train", "--from-cache", *places, *SHORT, *words)
    assert done.code == 0, done.err
    return done


def _trained(name: str) -> bytes:
    return latest_tensors(Path(f".epalm/runs/{name}"))


@given(st.integers(0, 2**32), st.integers(0, 1000), st.lists(st.sampled_from(NAMES), min_size=1), st.integers(1, 9))
def test_a_draw_depends_on_sample_seed_and_epoch_alone(seed: int, epoch: int, names: list[str], views: int) -> None:
    among = tuple(range(1, views + 1))
    drawn = draw_views(names, among, seed=seed, epoch=epoch)
    assert set(drawn.tolist()) <= set(among)
    alone = [int(draw_views([name], among, seed=seed, epoch=epoch)[0]) for name in names]
    assert drawn.tolist() == alone
    assert draw_views(names[::-1], among, seed=seed, epoch=epoch).tolist() == alone[::-1]


@pytest.mark.parametrize("views", [(1, 2), (1, 2, 3, 4, 5), (2, 7, 9)])
def test_every_view_is_drawn_equally_often_and_epochs_are_independent(views: tuple[int, ...]) -> None:
    epochs = [draw_views(NAMES, views, seed=3, epoch=epoch) for epoch in range(4)]
    other = draw_views(NAMES, views, seed=4, epoch=0)
    expected = len(NAMES) / len(views)
    for drawn in (*epochs, other):
        counts = Counter(drawn.tolist())
        assert all(abs(counts[view] - expected) < 5 * np.sqrt(expected) for view in views)
    for drawn in (*epochs[1:], other):  # pairs of views occur as often as chance has them
        same = int((drawn == epochs[0]).sum())
        assert abs(same - expected) < 5 * np.sqrt(expected)
    medium = [f"{NAMES[0][:64]}/question {number}" for number in range(3000)]  # of one picture
    assert abs(int((draw_views(medium, (1, 2), seed=3, epoch=0) == 1).sum()) - 1500) < 5 * np.sqrt(1500)


def _cached(trial: Trial) -> tuple[CachedFeatures, Dataset]:
    cache = Cache(trial.cache)
    dataset = load_dataset(str(trial.world), Modality.IMAGE)
    (features,) = cache.sets()
    return CachedFeatures(cache, features.name, dataset, dataset.samples, features.spec.layers), dataset


def test_training_gets_the_drawn_views_and_all_else_view_0(trial: Trial) -> None:
    trial.extract("--views", 3)
    features, dataset = _cached(trial)
    samples = dataset.split("train")
    plain = features.gather(samples)
    assert np.array_equal(features.gather(samples, epoch=0), plain)  # until views are asked for
    assert features.draw_from(samples, seed=5) == (1, 2, 3)
    assert features.describe()["views"] == [1, 2, 3]
    assert np.array_equal(features.gather(samples), plain)
    reader = Cache(trial.cache).sets()[0].open()
    digests = [Cache(trial.cache).media.digest(dataset.locate(sample.media)) for sample in samples]
    for epoch in range(3):
        names = [f"{digest}/{sample.id}" for digest, sample in zip(digests, samples, strict=True)]
        views = draw_views(names, (1, 2, 3), seed=5, epoch=epoch)
        expected = reader.gather(reader.rows_of(digests), view=views)
        assert np.array_equal(features.gather(samples, epoch=epoch), expected)
        for start in range(0, len(samples), 4):
            part = slice(start, start + 4)
            assert np.array_equal(features.gather(samples[part], epoch=epoch), expected[part])
    of_one = [sample for sample in samples if sample.media == samples[0].media]
    assert len({features.gather([one], epoch=e).tobytes() for one in of_one for e in range(4)}) == 3


class Watched:
    """Features that note for which epoch each sample was asked."""

    def __init__(self, features: CachedFeatures) -> None:
        self._features, self.layers, self.width = features, features.layers, features.width
        self.layout = features.layout
        self.asked: list[tuple[str, int | None]] = []

    def gather(self, samples: Any, *, epoch: int | None = None) -> np.ndarray:
        self.asked += [(sample.split, epoch) for sample in samples]
        return self._features.gather(samples, epoch=epoch)

    def digests(self, samples: Any) -> list[str]:
        return self._features.digests(samples)

    def describe(self) -> dict[str, Any]:
        return self._features.describe()


def test_what_several_processes_read_is_mapped_from_the_cache_and_shared(trial: Trial) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not say what is mapped")
    alone, dataset = _cached(trial)
    (whole,) = Cache(trial.cache).sets()
    assert str(trial.cache) not in maps.read_text()
    features = CachedFeatures(Cache(trial.cache), whole.name, dataset, dataset.samples, whole.spec.layers, mapped=True)
    gathered = features.gather(dataset.samples)
    mapped = [line.split()[1] for line in maps.read_text().splitlines() if str(trial.cache) in line]
    assert mapped and set(mapped) == {"r--s"}  # read only, the pages those of all who map the file
    assert np.array_equal(gathered, alone.gather(dataset.samples))


def test_training_asks_for_its_epoch_and_validation_for_none(trial: Trial, tmp_path: Path) -> None:
    cached, dataset = _cached(trial)
    cached.draw_from(dataset.split("train"), seed=0)
    features = Watched(cached)
    config = load_config("playground", ["optim.epochs=3", "optim.batch_size=8", "data.val_split=test"])
    run = RunFolder.create(tmp_path / "runs", "views")
    parts = (dataset.split("train"), dataset.split("test"))
    train(set_up(Material(TrainRequest(device="cpu"), config, dataset, Modality.IMAGE, features, *parts)), run)
    asked = Counter(features.asked)
    assert {key for key in asked if key[0] == "train"} == {("train", 0), ("train", 1), ("train", 2)}
    assert {key for key in asked if key[0] == "test"} == {("test", None)}


def test_the_choice_is_said_and_recorded(trial: Trial) -> None:
    trial.extract("--views", 2)
    augmented = _train(trial, "--set", "data.augment=true", "--run", "augmented")
    assert "one of views 1, 2 of each sample every epoch, view 0 to validate" in augmented.err
    assert "one view" not in augmented.err
    plain = _train(trial, "--run", "plain")
    assert ", view 0; " in plain.err and "have one view" not in plain.err
    inputs = [json.loads(Path(f".epalm/runs/{name}/inputs.json").read_text()) for name in ("augmented", "plain")]
    assert [one["features"]["views"] for one in inputs] == [[1, 2], [0]]
    assert _trained("augmented") != _trained("plain")
    _train(trial, "--set", "data.augment=true", "--run", "again")
    assert _trained("augmented") == _trained("again")
    scored = trial.epalm(
        "score", "--run", "augmented", "--limit", 4, "--metrics", "exact match", "--cache", trial.cache
    )
    assert scored.code == 0, scored.err


def test_a_recipe_that_augments_and_features_of_one_view_make_a_warning(trial: Trial, tmp_path: Path) -> None:
    trial.cache = tmp_path / "plain"
    trial.extract("--views", 0)
    augment = ("--set", "data.augment=true")
    warned = _train(trial, *augment).err
    assert "warning: the recipe augments its media, and these features have one view" in warned
    assert "--views 4" in warned and "view 0" in warned
    assert "have one view" not in _train(trial, "--set", "data.augment=false").err
    rows = trial.samples
    name = next(row["media"] for row in rows if row["split"] == "train")
    trial.samples = [row for row in rows if row["media"] == name]
    trial.extract("--views", 2)
    trial.samples = rows
    assert "have one view, or others of some media alone" in _train(trial, *augment).err
    trial.extract("--views", 2)
    assert "have one view" not in _train(trial, *augment).err


def test_the_encoder_in_the_loop_draws_the_same_way(extracted_pictures: Path) -> None:
    choice = EncoderChoice("vit", str(extracted_pictures / "weights"), modality=Modality.IMAGE)
    encoder = build_encoder(choice, device="cpu")
    dataset = load_dataset(str(extracted_pictures / "world"), Modality.IMAGE)
    samples = list(dataset.split("train"))
    live = LiveFeatures(encoder, (1, 3), dataset, view_seed=2, choice=choice)
    plain = LiveFeatures(encoder, (1, 3), dataset, choice=choice)
    assert (live.describe()["view_seed"], plain.describe()["view_seed"]) == (2, None)
    assert plain.describe()["version"] == feature_spec(encoder, (1, 3)).version  # of the code that reads media
    first = live.gather(samples, epoch=0)
    assert np.array_equal(plain.gather(samples, epoch=0), plain.gather(samples))
    assert np.array_equal(live.gather(samples), plain.gather(samples))
    again = LiveFeatures(encoder, (1, 3), dataset, view_seed=2, choice=choice)
    np.testing.assert_allclose(again.gather(samples[::-1], epoch=0)[::-1], first, atol=1e-5)
    for place in (0, 3, 7):
        np.testing.assert_allclose(again.gather([samples[place]], epoch=0)[0], first[place], atol=1e-5)

    def differ(one: np.ndarray, other: np.ndarray) -> bool:
        return bool((np.abs(one - other).max(axis=(1, 2)) > 1e-3).all())

    assert differ(first, live.gather(samples, epoch=1))
    assert differ(first, live.gather(samples))
    assert differ(first, LiveFeatures(encoder, (1, 3), dataset, view_seed=3).gather(samples, epoch=0))
    of_one = [sample for sample in samples if sample.media == samples[0].media]
    rows = live.gather(of_one, epoch=0)
    assert len({row.tobytes() for row in rows}) == len(of_one) > 3


def test_layers_of_a_wider_set_train_as_a_set_of_just_these(trial: Trial, tmp_path: Path) -> None:
    """Bit for bit, named by the training, by the extraction or as the set has them."""
    augment = ("--set", "data.augment=true")
    assert trial.extract("--layers", "1,3") == (5, 0)  # a hit of layers 1 to 3, and the latest extraction
    assert "layers [1, 3]" in _train(trial, *augment, "--run", "extracted").err
    assert "layers [1, 3]" in _train(trial, *augment, "--run", "typed", "--layers", "1,3").err
    assert "layers [2, 3]" in _train(trial, *augment, "--run", "others", "--layers", "last:2").err
    trial.cache = tmp_path / "narrow"
    assert trial.extract("--layers", "1,3") == (0, 5)
    assert "layers [1, 3]" in _train(trial, *augment, "--run", "narrow").err
    assert _trained("extracted") == _trained("typed") == _trained("narrow") != _trained("others")
    refused = trial.epalm("train", "--from-cache", "-m", "image", "--data", trial.world, "--cache", trial.cache, *SHORT,
                          "--layers", "2,3")  # fmt: skip
    assert refused.code == 1 and "there are blocks 1, 3" in refused.err


def test_samples_of_a_medium_may_have_any_names(trial: Trial) -> None:
    """A name that is no text cannot stop a draw."""
    features, dataset = _cached(trial)
    features.draw_from(dataset.split("train"), seed=0)
    media = dataset.split("train")[0].media
    odd = [Sample(name, Modality.IMAGE, media, Task.CAPTION, "train") for name in ("\udcff", "", "a\0b")]
    assert features.gather(odd, epoch=0).shape == (3, 3, 1, 24)
