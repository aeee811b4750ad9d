"""Before a training: rows are tried again, and found by name where the media are not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.extract.preprocess import Pixels
from epalm.samples import Modality
from tests.conftest import Done, Epalm
from tests.trials import Trial, make_trial


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trial")
    make_trial(root, Modality.IMAGE)
    return root


@pytest.fixture
def trial(made: Path, epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    shutil.copytree(made, tmp_path / "trial")
    monkeypatch.setattr("epalm.cli.canary._CHECKED", 9)  # all of the few media
    trial = Trial(epalm, Modality.IMAGE, tmp_path / "trial")
    assert trial.extract()[1] == 0  # the latest extraction, of the copied weights
    return trial


def _train(trial: Trial, *words: object) -> Done:
    places = ("--data", trial.world, "--cache", trial.cache, "--runs", trial.root / "runs")
    short = ("--recipe", "playground", "--set", "optim.max_steps=2", "--set", "eval.val_samples=2")
    return trial.epalm("train", "--from-cache", "-m", "image", *places, *short, *words)


def _set(trial: Trial) -> FeatureSet:
    (features,) = Cache(trial.cache).sets()
    return features


def test_it_says_what_it_compared(trial: Trial) -> None:
    done = _train(trial)
    assert done.code == 0, done.err
    assert "canary: " in done.err and "media encoded again" in done.err


def test_other_numbers_under_the_same_fingerprint_are_named(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    normalise = Pixels.normalise
    monkeypatch.setattr(Pixels, "normalise", lambda self, raw: normalise(self, raw) + 1)
    done = _train(trial)
    assert done.code == 1 and "the canary" in done.err and "no library has changed" in done.err
    assert any(path.name in done.err for path in trial.media)
    assert _train(trial, "--no-canary").code == 0


def test_rows_that_were_tampered_with_in_a_consistent_way_are_named(trial: Trial) -> None:
    features = _set(trial)
    blocks = [(record.rows, record.views) for record in features.records()]
    for block in features.block_names():
        features.drop(block)
    rng = np.random.default_rng(0)
    for rows, views in blocks:
        shape = (len(rows), len(views), len(features.spec.layers), features.spec.width)
        features.write_block(rows, rng.standard_normal(shape).astype(np.float16), views)
    assert not features.verify()
    done = _train(trial)
    assert done.code == 1 and "the canary" in done.err


def test_changed_libraries_are_named(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    normalise = Pixels.normalise
    monkeypatch.setattr(Pixels, "normalise", lambda self, raw: normalise(self, raw) + 1)
    monkeypatch.setattr("epalm.cli.canary.library_versions", lambda: {"pillow": "99.0", "torch": "2"})
    assert "→ 99.0" in _train(trial).err


def test_without_the_encoder_it_says_that_it_did_not_look(trial: Trial) -> None:
    path = Path(_set(trial).where) / "recorded.json"
    recorded = json.loads(path.read_text())
    choice = json.loads(recorded["encoder"]) | {"weights": str(trial.root / "gone")}
    path.write_text(json.dumps(recorded | {"encoder": json.dumps(choice)}))
    done = _train(trial)
    assert done.code == 0, done.err
    assert "canary: not checked, the encoder is not at hand" in done.err


def test_training_without_the_media(trial: Trial) -> None:
    for path in trial.media:
        path.unlink()
    done = _train(trial)
    assert done.code == 0, done.err
    assert "media are not here" in done.err and "canary: not checked" in done.err


def test_a_changed_file_is_a_hole_and_no_name_is_looked_up_for_it(trial: Trial) -> None:
    changed = trial.media[0]
    shutil.copyfile(trial.media[1], changed)
    data = bytearray(changed.read_bytes())
    changed.write_bytes(bytes(data) + b"\0")
    done = _train(trial)
    assert done.code == 1
    assert changed.name in done.err and "--allow-missing 1" in done.err


def test_a_name_that_stands_for_two_contents_is_not_guessed(trial: Trial) -> None:
    """Two data sets use one name for different pictures; from a third, nobody knows which is meant."""
    twin = trial.root / "twin"
    shutil.copytree(trial.world, twin)
    shutil.copyfile(trial.media[1], twin / trial.media[0].relative_to(trial.world))
    trial.extract("--data", twin)
    third = trial.root / "third"
    name, other = (path.relative_to(trial.world) for path in (trial.media[0], trial.media[2]))
    trial.world.rename(third)
    for path in (third / name, third / other):
        path.unlink()
    words = ("--data", third, "--cache", trial.cache, "--recipe", "playground")
    done = trial.epalm("train", "--from-cache", "-m", "image", *words, "--plan")
    assert done.code == 1 and name.name in done.err
