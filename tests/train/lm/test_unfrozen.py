"""The encoder, and the language model, trained with the rest: gradients, what is saved, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from epalm.datasets import load_dataset
from epalm.extract.encoders.registry import EncoderChoice, TrainableEncoder, build_encoder
from epalm.extract.live import EncoderModule, TrainableFeatures
from epalm.playground.generate import COUNTS
from epalm.samples import Modality
from epalm.train.runs.run_folder import RunFolder
from tests.conftest import Epalm, save_small_vit
from tests.extract.encoders.families import token_of

SHORT = ("--set", "optim.max_steps=3", "--set", "optim.batch_size=8", "--set", "eval.every_steps=3")
FAST = ("--set", "optim.encoder_lr=1e-3", "--set", "optim.lm_lr=1e-4")


def test_the_encoders_gradients_are_those_of_finite_differences(tmp_path: Path) -> None:
    encoder = build_encoder(EncoderChoice("vit", str(save_small_vit(tmp_path / "vit", depth=2))), device="cpu")
    assert isinstance(encoder, TrainableEncoder)
    module = EncoderModule(encoder, (0, 1))
    module.double()
    pictures = torch.randn(2, 3, 16, 16).double()
    weights = torch.randn(2, 2, 24).double()

    def value() -> torch.Tensor:
        return (token_of(encoder, pictures) * weights).sum()

    value().backward()
    for name, tensor in module.named_parameters():
        assert tensor.grad is not None, name
        place = int(tensor.grad.abs().argmax())
        flat, ends = tensor.data.view(-1), []
        for shift in (1e-6, -2e-6):
            flat[place] += shift
            ends.append(float(value().detach()))
        assert float(tensor.grad.view(-1)[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4), name


@pytest.mark.parametrize("kind", ["vit", "timesformer", "timesformer-space", "vit-frames", "ast"])
def test_every_encoder_can_be_trained(kind: str) -> None:
    modality = {"vit": Modality.IMAGE, "timesformer-space": Modality.IMAGE, "ast": Modality.AUDIO}.get(kind)
    encoder = build_encoder(EncoderChoice(kind, "playground", modality=modality), device="cpu")
    assert isinstance(encoder, TrainableEncoder)
    module = EncoderModule(encoder, (encoder.depth - 1,))
    read = encoder.input.describe()
    if read["medium"] == "audio":
        raw = torch.randn(1, read["frames"], read["mel_bins"])
    else:
        clip = (read["frames"],) if read["medium"] == "video" else ()
        raw = torch.randint(256, (1, *clip, *read["size"], 3), dtype=torch.uint8)
    tokens = module(raw)
    assert tokens.shape == (1, 1, 1, encoder.width)
    tokens.sum().backward()
    # Space-only attention leaves the temporal branch out; nothing else may be without a gradient.
    without = [name for name, tensor in module.named_parameters() if tensor.grad is None]
    assert all(kind == "timesformer-space" and "temporal" in name for name in without)


@pytest.mark.parametrize("epoch", [None, 3])
def test_raw_inputs_through_the_module_are_the_features(epoch: int | None, worlds: dict[Modality, Path]) -> None:
    dataset = load_dataset(str(worlds[Modality.IMAGE]), Modality.IMAGE)
    encoder = build_encoder(EncoderChoice("vit", "playground"), device="cpu")
    source = TrainableFeatures(encoder, (4, 5), dataset, view_seed=7)
    samples = dataset.samples[:6]
    with torch.no_grad():
        tokens = source.encoder(source.inputs(samples, epoch=epoch))
    np.testing.assert_allclose(tokens.numpy(), source.gather(samples, epoch=epoch), atol=1e-5)


def test_an_encoder_is_trained_saved_and_used(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worlds: dict[Modality, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(COUNTS, Modality.IMAGE, (12, 4, 4))
    unfrozen = ("--set", "encoder.train=true", "--set", "lm.train=true")
    done = epalm("train", "-m", "image", *unfrozen, *SHORT, *FAST, "--json")
    assert done.code == 0, done.err
    run = RunFolder(tmp_path / json.loads(done.out)["run"])
    tensors, _ = run.load()
    assert {name.partition(".")[0] for name in tensors} == {"connector", "prompt", "lm", "encoder"}
    encoder = build_encoder(EncoderChoice("vit", "playground"), device="cpu")
    assert isinstance(encoder, TrainableEncoder)
    own = dict(encoder.module.named_parameters())
    moved = [name for name, value in own.items() if not torch.equal(value, tensors[f"encoder.model.{name}"])]
    assert moved and run.config.encoder.train and run.config.lm.train

    scored = epalm("score", "--json", "--metrics", "exact match")
    assert scored.code == 0, scored.err
    medium = next((worlds[Modality.IMAGE] / "test").iterdir())
    assert epalm("predict", medium, "what is it?").code == 0

    from epalm.extract.live import rebuild_encoder
    from epalm.media import MediaFile
    from epalm.train.runs.loading import load_run
    from tests.extractions import encode_files

    loaded = load_run(run, device="cpu")
    recorded = loaded.inputs["features"]
    fresh, trained = (rebuild_encoder(recorded, "cpu", tensors) for tensors in ({}, loaded.encoder))
    values = [encode_files([MediaFile(medium)], one, recorded["layers"])[0] for one in (fresh, trained)]
    assert not np.allclose(values[0], values[1], atol=1e-3)


def test_a_trained_encoder_refuses_cached_features_and_says_why(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worlds: dict[Modality, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert epalm("extract", "-m", "image", "--data", worlds[Modality.IMAGE], "--weights", "playground").code == 0
    done = epalm("train", "--from-cache", "--recipe", "playground", "--set", "encoder.train=true")
    assert done.code == 1
    assert "as it was" in done.err and "leave out --from-cache" in done.err and done.err.count("error: ") == 1
