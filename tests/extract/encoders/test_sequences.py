"""Encoders of clips and recordings from file to token, against the library's own processor and forward pass."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers as hf

from epalm.errors import MediaError, UsageError
from epalm.extract.encoders import wav2vec2
from epalm.extract.encoders.registry import Encoder, EncoderChoice, build_encoder
from epalm.extract.inputs.augment import VIEW_0, view_of
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames
from epalm.media import MediaFile
from tests.clips import read_clip, write_clip
from tests.extract.encoders.families import token_of
from tests.extract.encoders.sequences import AUDIO, CLIPS, DEPTH, VIDEO, WIDTH, Family, clap_model

RATE = 16_000
SECONDS = (0.3, 1.4, 0.3, 2.5)  # of the recordings


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    return [
        write_clip(folder / f"{number}.mp4", list(random.integers(0, 256, (11, *size, 3), np.uint8)))
        for number, size in enumerate(((48, 64), (64, 40)))
    ]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, random = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    paths = [folder / f"{number}.wav" for number in range(len(SECONDS))]
    for path, seconds in zip(paths, SECONDS, strict=True):
        soundfile.write(path, random.normal(0, 0.1, int(seconds * RATE)), RATE)
    return paths


def _tokens(encoder: Encoder, paths: Sequence[Path]) -> torch.Tensor:
    """As an extraction computes them, in one batch."""
    raw = torch.from_numpy(np.concatenate([encoder.input(MediaFile(path)) for path in paths]))
    with torch.inference_mode():
        return token_of(encoder, encoder.input.normalise(raw))


@torch.inference_mode()
def _expected(family: Family, folder: Path, inputs: Any, real: int | None = None) -> torch.Tensor:
    """The mean over `real` tokens [default: all] of the norm of each block's output, in the library's own model."""
    whole = family.model()
    whole = type(whole).from_pretrained(folder).eval()
    part, hidden = whole.get_submodule(family.part), list[torch.Tensor]()
    for block in part.get_submodule(family.blocks):
        block.register_forward_hook(lambda _m, _i, out: hidden.append(out[0] if isinstance(out, tuple) else out))
    part(inputs)
    norm = whole.get_submodule(family.norm) if family.norm else torch.nn.Identity()
    return torch.stack([norm(one)[0, family.special :][:real].mean(dim=0) for one in hidden])


@pytest.mark.parametrize("name", VIDEO)
def test_clips(name: str, clips: list[Path], tmp_path: Path) -> None:
    family = VIDEO[name]
    encoder = family.save(tmp_path)
    tokens, frames = _tokens(encoder, clips), encoder.input.frames  # type: ignore[attr-defined]
    assert tokens.shape == (2, DEPTH, WIDTH) and (encoder.depth, encoder.width) == (DEPTH, WIDTH)
    assert frames == {"videomae": 6}.get(family.kind, 4)
    for path, mine in zip(clips, tokens, strict=True):
        chosen = np.stack(read_clip(path, middle_frames(11, frames)))
        pixels = next(iter(family.processor(videos=[chosen], return_tensors="pt").values()))
        if family.kind == "timesformer":  # which stretches on Pillow
            pixels = encoder.input.normalise(torch.from_numpy(encoder.input(MediaFile(path))))
        torch.testing.assert_close(mine, _expected(family, tmp_path, pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", AUDIO)
def test_recordings(name: str, recordings: list[Path], tmp_path: Path) -> None:
    """Padding is no part of the mean, and a recording's token does not know who shares its batch."""
    family = AUDIO[name]
    encoder = family.save(tmp_path)
    tokens = _tokens(encoder, recordings)
    assert tokens.shape == (4, DEPTH, WIDTH) and (encoder.depth, encoder.width) == (DEPTH, WIDTH)
    for path, mine in zip(recordings, tokens, strict=True):
        extractor, real = family.processor, None
        rate = extractor.sampling_rate
        wave = read_waveform(MediaFile(path), Limits(), rate=rate, keep=10**9).samples
        inputs = next(iter(extractor(wave, sampling_rate=rate, return_tensors="pt").values()))
        if family.kind == "whisper":
            real = min(100, -(-len(wave) // 320))
        if family.kind == "ast":
            inputs = encoder.input.normalise(torch.from_numpy(encoder.input(MediaFile(path))))
            frames = (len(wave) - 400) // 160 + 1
            expected = _expected_of_ast(family, tmp_path, inputs, [start < frames for start in range(0, 50, 10)])
        else:
            expected = _expected(family, tmp_path, inputs, real)
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(_tokens(encoder, [path])[0], mine, atol=1e-5, rtol=1e-5)


GRIDS = {
    "VideoMAE": (3, 4, 4), "V-JEPA 2": (2, 4, 4), "TimeSformer": (4, 4, 4), "Whisper": (100,), "CLAP": (8, 128),
    "wav2vec 2, stable": (12_000,), "AST": (2, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
@torch.inference_mode()
def test_tokens_lie_in_the_order_of_their_grid(
    name: str, clips: list[Path], recordings: list[Path], tmp_path: Path
) -> None:
    """What changes at one place of the medium moves the token of that place most."""
    family = ({**VIDEO, **AUDIO})[name]
    family.save(tmp_path, varied=False)
    encoder = build_encoder(EncoderChoice(family.kind, str(tmp_path), tokens="all"), device="cpu")
    layout, grid = encoder.layout, GRIDS[name]
    assert layout.grid == grid and layout.cls == (family.special > 0)
    raw = encoder.input(MediaFile(recordings[-1] if name in AUDIO else clips[0]))
    inputs = encoder.input.normalise(torch.from_numpy(raw))
    before = encoder.encode(inputs, [0], torch.float32)
    for place in ((0.3, 0.3, 0.3), (0.7, 0.1, 0.6), (0.4, 0.8, 0.2)):
        changed, real = _changed(inputs, family.kind, place[: len(grid)], grid)
        moved = (encoder.encode(changed, [0], torch.float32) - before)[0, 0, int(layout.cls) :].norm(dim=-1)
        found = np.array(np.unravel_index(int(moved.argmax()), grid))
        assert (abs(found + 0.5 - np.array(place[: len(grid)]) * real) <= 1.5).all(), (place, found, real)


def _changed(
    inputs: torch.Tensor, kind: str, place: Sequence[float], grid: Sequence[int]
) -> tuple[torch.Tensor, Sequence[int]]:
    """Normalised inputs changed at a place, each of its axes from 0 to 1, and the grid without padding."""
    inputs = inputs.clone()
    if inputs.ndim == 5:  # clips (1, F, 3, H, W)
        time, row, column = (int(share * size) for share, size in zip(place, grid, strict=True))
        step = inputs.shape[1] // grid[0]
        inputs[0, time * step : (time + 1) * step, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 4
    elif inputs.ndim == 2:  # waveforms (1, samples), here 2.5 s with padding behind
        grid, start = [int(2.5 * RATE) // 40], int(place[0] * 2.5 * RATE)
        inputs[0, start : start + 40] += 4
    else:  # energies (1, frames, mels), those of log_mel with a column more
        frames, mels = inputs.shape[1], inputs.shape[2] - (kind != "ast")
        time, width = int(place[-1] * frames), frames // grid[-1]
        mel = int(place[0] * mels) if len(grid) == 2 else 0
        inputs[0, time : time + width, mel : mel + mels // grid[0] if len(grid) == 2 else mels] += 1
    return inputs, grid


@pytest.mark.parametrize("name", ["Whisper", "wav2vec 2, stable", "AST", "TimeSformer", "V-JEPA 2"])
@torch.inference_mode()
def test_narrower_rules_have_the_bits_of_all_tokens_and_padding_is_zeros(
    name: str, clips: list[Path], recordings: list[Path], tmp_path: Path
) -> None:
    family = ({**VIDEO, **AUDIO})[name]
    family.save(tmp_path)
    rules = {"AST": ["pool:2x1", "cls"], "TimeSformer": ["time-mean", "pool:2x4", "cls"], "V-JEPA 2": ["pool:2x2x2"]}
    encoders = {
        rule: build_encoder(EncoderChoice(family.kind, str(tmp_path), tokens=rule), device="cpu")
        for rule in ("all", "mean", *rules.get(name, ["pool:4"]))
    }
    whole = encoders["all"]
    raw = np.concatenate([whole.input(MediaFile(path)) for path in (recordings if name in AUDIO else clips)])
    inputs = whole.input.normalise(torch.from_numpy(raw))
    everything = whole.encode(inputs, [1], torch.float16)
    for rule, encoder in encoders.items():
        tokens = encoder.encode(inputs, [1], torch.float16).half()
        assert encoder.layout == whole.layout.narrowed(rule)
        assert torch.equal(tokens, whole.layout.pool(everything, rule)), rule
    if name in AUDIO:
        there = everything[:, 0, int(whole.layout.cls) :].any(dim=-1).unflatten(1, whole.layout.grid)
        there = there if there.ndim == 2 else there.any(dim=1)
        assert (there.long().diff(dim=1) <= 0).all()  # padding comes last
        shares = there.sum(dim=1) / there.shape[1]
        assert 0 < shares[0] < shares[1] and shares[0] == shares[2]


@torch.inference_mode()
def _expected_of_ast(family: Family, folder: Path, inputs: torch.Tensor, times: list[bool]) -> torch.Tensor:
    """Two rows of patches, five in each: those that begin in the recording."""
    model = hf.ASTModel.from_pretrained(folder).eval()
    hidden = model(inputs, output_hidden_states=True).hidden_states[1:]
    chosen = torch.tensor([False, False, *times, *times])
    return torch.stack([model.layernorm(one)[0, chosen].mean(dim=0) for one in hidden])


def test_clap_with_fusion_reads_what_fits(recordings: list[Path], tmp_path: Path) -> None:
    extractor = hf.ClapFeatureExtractor(truncation="fusion", max_length_s=3)
    options = {"enable_fusion": True, "fusion_type": None, "patch_embed_input_channels": 1}
    family = Family("clap", clap_model(**options), extractor, "audio_model", "", "audio_model.audio_encoder.norm")
    encoder = family.save(tmp_path)
    model = hf.ClapAudioModelWithProjection.from_pretrained(tmp_path).eval().audio_model
    for path, mine in zip(recordings, _tokens(encoder, recordings), strict=True):
        wave = read_waveform(MediaFile(path), Limits(), rate=48_000, keep=10**9).samples
        four = extractor(wave, sampling_rate=48_000, return_tensors="pt")["input_features"]
        assert four.shape[:2] == (1, 4)
        with torch.inference_mode():
            pooled = model(four, is_longer=torch.zeros(1, 1, dtype=torch.bool)).pooler_output
        torch.testing.assert_close(mine[-1], pooled[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["Whisper", "CLAP"])
def test_views_of_energies_are_masked(name: str, recordings: list[Path], tmp_path: Path) -> None:
    encoder, path = AUDIO[name].save(tmp_path), recordings[1]
    raw = encoder.input(MediaFile(path), [VIEW_0, *(view_of("digest", number, 7) for number in range(1, 4))])
    assert (raw[..., -1] == raw[:1, ..., -1]).all()  # what is padding stays so
    changed = raw[1:] != raw[:1]
    assert changed.any(axis=(1, 2)).sum() >= 2
    np.testing.assert_allclose(raw[1:][changed], raw[0, :, :-1].mean(), rtol=1e-5)
    off = build_encoder(EncoderChoice(AUDIO[name].kind, str(tmp_path), augmented=False), device="cpu")
    assert off.input.augmentation is None and off.input.describe() == encoder.input.describe()


def test_a_few_recordings_go_at_once(recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = AUDIO["wav2vec 2"].save(tmp_path)
    together, seen = _tokens(encoder, recordings), list[int]()
    encoder.module.register_forward_hook(lambda _m, inputs, _out: seen.append(len(inputs[0])))
    torch.testing.assert_close(_tokens(encoder, recordings), together)
    monkeypatch.setattr(wav2vec2, "_AT_ONCE", 0)
    torch.testing.assert_close(_tokens(encoder, recordings), together, atol=1e-5, rtol=1e-5)
    assert seen == [2, 1, 1, 1, 1, 1, 1]


def test_gradients_reach_an_encoder_of_waveforms(recordings: list[Path], tmp_path: Path) -> None:
    encoder: Any = AUDIO["HuBERT"].save(tmp_path)
    encoder.module.requires_grad_(True)
    raw = torch.from_numpy(np.concatenate([encoder.input(MediaFile(path)) for path in recordings]))
    token_of(encoder, encoder.input.normalise(raw))[:, -1].square().sum().backward()
    gradients = [one.grad for name, one in encoder.module.named_parameters() if "encoder.layers" in name]
    assert all(one is not None and one.isfinite().all() for one in gradients)


@pytest.mark.parametrize("name", ["V-JEPA 2", "VideoMAE", "Whisper", "CLAP", "WavLM"])
def test_there_is_no_cls_token(name: str, tmp_path: Path) -> None:
    family = ({**VIDEO, **AUDIO})[name]
    assert family.save(tmp_path).describe()["tokens"] == "mean"
    with pytest.raises(UsageError, match=r"no \[CLS\] token"):
        build_encoder(EncoderChoice(family.kind, str(tmp_path), tokens="cls"), device="cpu")


@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "whisper", "clap", "wav2vec2"])
def test_kinds_are_told_from_others(kind: str, tmp_path: Path) -> None:
    hf.ViTModel(hf.ViTConfig(**CLIPS)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UsageError):
        build_encoder(EncoderChoice(kind, str(tmp_path)), device="cpu")


def test_what_does_not_fit_is_one_message(recordings: list[Path], tmp_path: Path) -> None:
    VIDEO["VideoMAE"].save(tmp_path / "videomae")
    with pytest.raises(UsageError, match="tubelets of 2") as caught:
        build_encoder(EncoderChoice("videomae", str(tmp_path / "videomae"), frames=5), device="cpu")
    assert caught.value.hint == "use --frames 4"
    hf.VideoMAEVideoProcessor().save_pretrained(tmp_path / "videomae")
    with pytest.raises(UsageError, match="224×224 pixels, the model takes 32×32"):
        build_encoder(EncoderChoice("videomae", str(tmp_path / "videomae")), device="cpu")
    AUDIO["Whisper"].save(tmp_path / "whisper")
    hf.WhisperFeatureExtractor().save_pretrained(tmp_path / "whisper")
    with pytest.raises(UsageError, match="gives 3000 frames of 80 mel bins, the model takes 200 of 40"):
        build_encoder(EncoderChoice("whisper", str(tmp_path / "whisper")), device="cpu")
    waves = AUDIO["HuBERT"].save(tmp_path / "hubert")
    soundfile.write(tmp_path / "short.wav", np.zeros(80), RATE)
    with pytest.raises(MediaError, match="too short: 80 samples"):
        waves.input(MediaFile(tmp_path / "short.wav"))
    loud = np.random.default_rng(0).normal(0, 1e30, RATE).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", loud, RATE, subtype="FLOAT")
    AUDIO["Whisper"].save(tmp_path / "whisper")
    for encoder in (waves, build_encoder(EncoderChoice("whisper", str(tmp_path / "whisper")), device="cpu")):
        with pytest.raises(MediaError, match="louder"):
            encoder.input(MediaFile(tmp_path / "loud.wav"))


@pytest.mark.parametrize("name", [*VIDEO, *AUDIO])
def test_what_is_described_is_json(name: str, tmp_path: Path) -> None:
    encoder = ({**VIDEO, **AUDIO})[name].save(tmp_path)
    described = {"encoder": encoder.describe(), "input": encoder.input.describe()}
    assert json.loads(json.dumps(described)) == described and str(tmp_path) not in json.dumps(described)
