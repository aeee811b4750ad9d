"""The canary of a training: rows encoded again and compared, a difference named, silence explained."""

import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from epalm.cache.blocks import read_block
from epalm.cache.store import Cache
from epalm.errors import MediaError
from epalm.extract import canary, spec_builder
from epalm.extract.canary import compare_rows
from epalm.extract.encoders.registry import EncoderChoice
from epalm.extract.inputs import preprocess
from epalm.extract.inputs.augment import PixelDraw
from epalm.extract.inputs.preprocess import ImageInput
from epalm.media import MediaFile
from epalm.samples import Modality
from tests.conftest import Done, Epalm
from tests.trials import TRAIN, Trial, make_trial

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=1", "--set", "optim.batch_size=4")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    roots = {modality: tmp_path_factory.mktemp(modality) for modality in Modality}
    for modality, root in roots.items():
        make_trial(root, modality)
    return roots


@pytest.fixture(params=[Modality.IMAGE])
def trial(
    request: pytest.FixtureRequest,
    extracted: dict[Modality, Path],
    tmp_path: Path,
    epalm: Epalm,
    monkeypatch: pytest.MonkeyPatch,
) -> Trial:
    """As it was extracted, at its place: the encoder is found where the extraction found it."""
    monkeypatch.chdir(tmp_path)
    trial = Trial(epalm, request.param, extracted[request.param])
    trial.cache, trial.world = (shutil.copytree(path, tmp_path / path.name) for path in (trial.cache, trial.world))
    return trial


def _train(trial: Trial, *words: object) -> Done:
    places = ("-m", trial.modality, "--data", trial.world, "--cache", trial.cache)
    done = trial.epalm("train", "--from-cache", "--run", uuid4().hex, *places, *SHORT, *words)
    assert "Traceback" not in done.err
    return done


def _printed(done: Done) -> str:
    (line,) = [line for line in done.err.splitlines() if "canary: " in line]
    return line


def _rewrite(trial: Trial, change: Callable[[str, np.ndarray], np.ndarray], **libraries: str) -> None:
    """Put other rows (V, L, D) in place of those stored, with records that are valid."""
    (features,) = Cache(trial.cache).sets()
    recorded = features.recorded
    features.note({**recorded, **libraries})
    for record in features.records():
        values = read_block(features.objects, record)
        features.drop(record.block, record)
        rows = [change(digest, row.astype(np.float32)) for digest, row in zip(record.rows, values, strict=True)]
        features.write_block(record.rows, np.stack(rows).astype(values.dtype), record.views)
    features.note(recorded)
    assert not features.verify()


@pytest.mark.parametrize("trial", Modality, indirect=True)
def test_it_says_what_it_compared_where_all_is_well(trial: Trial) -> None:
    done = _train(trial)
    assert done.code == 0, done.err
    assert f"canary: {TRAIN} media encoded again, view 0 and view 1: off by at most 0." in _printed(done)
    assert not [line for line in done.err.splitlines() if "warning" in line and " steps " not in line]


def test_rounding_is_no_alarm(trial: Trial) -> None:
    noise = np.random.default_rng(0)
    _rewrite(trial, lambda _, row: row * (1 + 1e-3 * noise.standard_normal(row.shape)).astype(np.float32))
    assert _train(trial).code == 0


@pytest.mark.parametrize("trial", Modality, indirect=True)
def test_other_rows_with_valid_records_are_named_with_what_has_changed_since(trial: Trial) -> None:
    """With the libraries that made that row: a later extraction into the same set had others."""
    noise = np.random.default_rng(0)
    _rewrite(trial, lambda _, row: row + 0.3 * noise.standard_normal(row.shape), torch="1.0", pillow="9.1")
    done = _train(trial)
    assert done.code == 1 and done.err.count("error: ") == 1
    printed = _printed(done)
    names = {path.relative_to(trial.world).as_posix() for path in trial.media}
    assert any(f"canary: {name}, view" in printed for name in names)
    assert "is off by" in printed and "% of a token's length" in printed and "since then: " in printed
    assert "torch 1.0 → " in printed and "pillow 9.1 → " in printed and "timm" not in printed
    assert "--no-canary" in done.err
    assert not any(Path(".epalm").glob("runs/*"))
    assert _train(trial, "--no-canary").code == 0


def test_one_row_is_enough(trial: Trial) -> None:
    name = trial.media[1].relative_to(trial.world).as_posix()
    digest = Cache(trial.cache).media.digest(MediaFile(trial.media[1]))
    _rewrite(trial, lambda row_of, row: np.roll(row, 1, axis=-1) if row_of == digest else row)
    printed = _printed(_train(trial))
    assert f"canary: {name}, view" in printed and "no library has changed" in printed


def test_other_pixels_under_the_same_fingerprint_are_noticed(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = ImageInput._fit
    with monkeypatch.context() as patches:
        patches.setattr(ImageInput, "_fit", lambda *words: np.ascontiguousarray(fit(*words)[::-1]))
        done = _train(trial)
    assert done.code == 1 and "is off by" in _printed(done)
    applied = PixelDraw.apply
    monkeypatch.setattr(PixelDraw, "apply", lambda *words: 255 - applied(*words))
    done = _train(trial)
    assert done.code == 1 and ", view 1, " in _printed(done)


def test_it_can_be_switched_off(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_words: object, **_options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(canary, "rebuild_encoder", never)
    done = _train(trial, "--no-canary")
    assert done.code == 0 and "canary" not in done.err


def test_other_media_are_tried_each_time(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "_CHECKED", 1)
    compared: list[str] = []

    def watched(features: Any, encoder: Any, media: Any) -> Any:
        compared.extend(media)
        return compare_rows(features, encoder, media)

    monkeypatch.setattr(canary, "compare_rows", watched)
    random.seed(0)
    for _ in range(8):
        assert _train(trial).code == 0
    assert len(compared) == 8 and len(set(compared)) > 1


def test_media_that_are_not_here_are_passed_over(trial: Trial) -> None:
    training = trial.media[:TRAIN]
    for path in training[:-1]:
        path.unlink()
    done = _train(trial)
    assert done.code == 0 and "canary: 1 media encoded again" in _printed(done)
    training[-1].unlink()
    done = _train(trial)
    assert done.code == 0 and "canary: not checked, the media are not here" in _printed(done)


def _other_choice(trial: Trial, **changes: Any) -> None:
    """Let the set say that another encoder, or one elsewhere, made it."""
    (features,) = Cache(trial.cache).sets()
    recorded = features.recorded
    choice = asdict(EncoderChoice.from_record(recorded)) | changes
    features.note({**recorded, **EncoderChoice(**choice).to_record()})


def test_an_encoder_that_is_not_at_hand_is_said_and_not_downloaded(trial: Trial, tmp_path: Path) -> None:
    for weights in (str(tmp_path / "nowhere"), "nobody/has-such-a-model"):
        _other_choice(trial, weights=weights)
        done = _train(trial)
        assert done.code == 0
        assert "canary: not checked, the encoder is not at hand" in _printed(done) and weights in _printed(done)


def test_other_weights_at_the_place_of_the_encoder_are_said(trial: Trial, tmp_path: Path) -> None:
    weights = shutil.copytree(trial.weights, tmp_path / "other")
    data = bytearray((weights / "model.safetensors").read_bytes())
    data[-4] ^= 1
    (weights / "model.safetensors").write_bytes(data)
    _other_choice(trial, weights=str(weights))
    done = _train(trial)
    assert done.code == 0 and "other weights" in _printed(done)


def test_a_version_that_gives_other_numbers_on_purpose_is_no_alarm(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(spec_builder._VERSIONS, "image", spec_builder._VERSIONS["image"] + 1)
    done = _train(trial)
    assert done.code == 0 and "canary: not checked, this version of epalm" in _printed(done)


def test_a_medium_that_is_no_longer_decoded_is_said(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object, **_options: object) -> None:
        raise MediaError("the picture cannot be decoded: it is odd", hint="look at it")

    monkeypatch.setattr(preprocess, "read_image", refuse)
    done = _train(trial)
    assert done.code == 0
    assert "canary: not checked, " in _printed(done) and "it is odd" in _printed(done) and ".jpg" in _printed(done)


def test_a_plan_needs_no_canary(trial: Trial) -> None:
    assert "canary" not in _train(trial, "--plan").err
