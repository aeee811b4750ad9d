"""One conformance suite that every encoder passes, and parity with reference numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTModel, TimesformerConfig, TimesformerModel

from epalm.extract.encoders.registry import (
    Encoder,
    EncoderChoice,
    build_encoder,
    own_encoders,
)
from epalm.extract.inputs.fit import Fit
from epalm.extract.inputs.fit_tensor import TensorFit
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Pixels, VideoInput
from epalm.fingerprint import canonical_json
from epalm.samples import Modality
from tests.extract.encoders.families import FAMILIES, token_of
from tests.extract.encoders.folders import (
    AST,
    DEPTH,
    KINDS,
    SIDE,
    TIMESFORMER,
    WIDTH,
    Folders,
    save_all,
    save_vit,
)

PARITY = Path(__file__).parents[3].parent / "shared" / "parity"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return save_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=own_encoders())
def encoder(request: pytest.FixtureRequest, folders: Folders) -> Encoder:
    return build_encoder(folders.choice(request.param), device="cpu")


def _batch(encoder: Encoder, count: int) -> torch.Tensor:
    return torch.randn(count, *KINDS[encoder.kind][1], generator=torch.Generator().manual_seed(1))


def test_says_what_it_is(encoder: Encoder) -> None:
    assert (encoder.depth, encoder.width) == (DEPTH, WIDTH)
    assert encoder.modality in own_encoders()[encoder.kind].modalities
    assert encoder.describe()["kind"] == encoder.kind


def test_gives_one_token_per_block(encoder: Encoder) -> None:
    tokens = token_of(encoder, _batch(encoder, 3))
    assert tokens.shape == (3, DEPTH, WIDTH)
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad
    assert (tokens[:, 0] - tokens[:, -1]).abs().max() > 1e-3


def test_a_row_depends_on_its_medium_alone(encoder: Encoder) -> None:
    batch = _batch(encoder, 5)
    together = token_of(encoder, batch)
    alone = torch.cat([token_of(encoder, one[None]) for one in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(token_of(encoder, batch.flip(0)).flip(0), together, atol=1e-5, rtol=0)
    assert torch.equal(token_of(encoder, batch), together)  # and nothing is left over from earlier calls


def test_its_tokens_pass_the_final_norm(encoder: Encoder) -> None:
    """Every block's, not only the last one's: a fresh norm leaves tokens of mean 0 and variance 1."""
    tokens = token_of(encoder, _batch(encoder, 2))
    if encoder.kind.endswith("-frames"):
        return  # a mean of such tokens
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, DEPTH), atol=1e-4, rtol=0)
    if encoder.describe().get("tokens") == "mean":
        return  # over tokens of variance 1
    torch.testing.assert_close(tokens.std(-1, correction=0), torch.ones(2, DEPTH), atol=1e-2, rtol=0)


def test_its_description_is_json_without_paths_or_names(encoder: Encoder, folders: Folders) -> None:
    text = canonical_json({"encoder": encoder.describe(), "input": encoder.input.describe()}).decode()
    assert str(folders.vit.parent) not in text


def test_equal_weights_elsewhere_are_the_same_encoder(folders: Folders, tmp_path: Path) -> None:
    for kind in own_encoders():
        choice = folders.choice(kind)
        assert choice.weights
        moved = tmp_path / kind
        moved.mkdir()
        for file in Path(choice.weights).iterdir():
            (moved / file.name).write_bytes(file.read_bytes())
        there = build_encoder(EncoderChoice(kind, str(moved)), device="cpu")
        assert there.describe() == build_encoder(choice, device="cpu").describe()


def test_one_changed_weight_is_another_encoder(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders.vit / "config.json").read_bytes())
    tensors = load_file(folders.vit / "model.safetensors")
    tensors["norm.bias"][3] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    mine = build_encoder(folders.choice("vit"), device="cpu").describe()
    other = build_encoder(EncoderChoice("vit", str(tmp_path)), device="cpu").describe()
    assert mine["weights"] != other["weights"]
    assert mine["architecture"] == other["architecture"]


def test_the_models_own_statistics_are_used(folders: Folders) -> None:
    vit = build_encoder(folders.choice("vit"), device="cpu")
    assert vit.input == ImageInput(Pixels((SIDE, SIDE), "bilinear", (0.1, 0.2, 0.3), (0.4, 0.4, 0.4)))
    video = build_encoder(folders.choice("timesformer"), device="cpu")
    assert video.input == VideoInput(Pixels((SIDE, SIDE), "bicubic", (0.1,) * 3, (0.2,) * 3), 4)
    audio = build_encoder(folders.choice("ast"), device="cpu")
    assert audio.input == AudioInput(16_000, 32, 64, -1.0, 2.0)


def test_the_models_own_resizing_is_used_where_asked_for(folders: Folders) -> None:
    vit = build_encoder(folders.choice("vit", resize="own"), device="cpu")
    assert vit.input.pixels.fit == Fit("shorter", (36, 36))  # type: ignore[attr-defined]
    clips = [build_encoder(folders.choice("timesformer", resize=one), device="cpu") for one in ("own", "stretch")]
    own, stretched = (one.input.pixels for one in clips)  # type: ignore[attr-defined]
    assert own.fit == TensorFit("shorter", (SIDE, SIDE)) and replace(own, fit=None) == stretched
    assert clips[0].describe() == clips[1].describe()


@pytest.mark.parametrize("kind", ["vit", "vit-frames"])
def test_who_is_stretched_by_default(kind: str, tmp_path: Path) -> None:
    """The encoders that were read before there was a choice."""
    for name, stretched in (("timm ViT", True), ("timm CLIP", True), ("timm SigLIP", False), ("timm DINOv3", False)):
        folder = FAMILIES[name].save(tmp_path / name)
        choices = [EncoderChoice(kind, str(folder), resize=resize) for resize in (None, "stretch", "own")]
        reads: list[Any] = [build_encoder(choice, device="cpu").input for choice in choices]
        assert reads[0] == reads[1 if stretched else 2] and reads[1].pixels.fit is None and reads[2].pixels.fit


def test_frame_average_is_the_mean_of_the_frames(folders: Folders) -> None:
    vit = build_encoder(folders.choice("vit"), device="cpu")
    mean = build_encoder(folders.choice("vit-frames", frames=3), device="cpu")
    clips = torch.randn(2, 3, 3, SIDE, SIDE)
    expected = torch.stack([token_of(vit, clips[:, frame]) for frame in range(3)]).mean(0)
    torch.testing.assert_close(token_of(mean, clips), expected, atol=1e-5, rtol=0)


def test_space_only_has_no_trace_of_time(folders: Folders, tmp_path: Path) -> None:
    """Temporal weights and the time embedding change nothing; pictures and one-frame clips give the same."""
    picture = torch.randn(2, 3, SIDE, SIDE)
    plain = build_encoder(folders.choice("timesformer-space"), device="cpu")
    tensors = load_file(folders.timesformer / "model.safetensors")
    temporal = [name for name in tensors if "time" in name.split(".")[-1] or "temporal" in name]
    assert temporal
    for name in temporal:
        tensors[name] += 1.0
    for file in folders.timesformer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    changed = EncoderChoice("timesformer-space", str(tmp_path), modality=Modality.VIDEO)
    on_videos = build_encoder(changed, device="cpu")
    assert isinstance(on_videos.input, VideoInput)
    assert on_videos.input.frames == 1
    assert torch.equal(token_of(plain, picture), token_of(on_videos, picture[:, None]))
    assert plain.describe() == on_videos.describe()


def test_more_frames_than_trained_with(folders: Folders) -> None:
    encoder = build_encoder(folders.choice("timesformer", frames=6), device="cpu")
    assert token_of(encoder, torch.randn(1, 6, 3, SIDE, SIDE)).shape == (1, DEPTH, WIDTH)


@pytest.mark.parametrize("name", ["vit", "timesformer", "ast"])
def test_parity(name: str, folders: Folders, tmp_path: Path) -> None:
    path = PARITY / f"encoder_{name}.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    numbers = load_file(path)
    weights = {key.removeprefix("weights."): value for key, value in numbers.items() if key.startswith("weights.")}
    if name == "vit":
        save_vit(tmp_path, weights, depth=4)
    else:
        model = ASTModel(ASTConfig(**AST)) if name == "ast" else TimesformerModel(TimesformerConfig(**TIMESFORMER))
        model.load_state_dict(weights)
        model.save_pretrained(tmp_path)
        for file in (folders.root / name).glob("preprocessor_config.json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    encoder = build_encoder(EncoderChoice(name, str(tmp_path)), device="cpu")
    given = numbers["input_values" if name == "ast" else "pixel_values"]
    torch.testing.assert_close(token_of(encoder, given), numbers["cls"], atol=1e-5, rtol=0)


def test_random_weights_depend_on_the_seed_alone(folders: Folders) -> None:
    digests: list[str] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(digests))
        state = torch.get_rng_state()
        choice = folders.choice("ast", random_weights=True, seed=seed)
        digests.append(build_encoder(choice, device="cpu").describe()["weights"])
        assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[1] != digests[2]
