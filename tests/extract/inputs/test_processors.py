"""What encoders get of a medium equals what the model library's own processor makes of it, to 1e-5 of a pixel's range.

The processors are the libraries' defaults: timm's evaluation transform on Pillow, transformers' on torchvision. They
are given what our decoders read, as decoding is not theirs.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import timm
import torch
from PIL import Image
from transformers import (
    ASTFeatureExtractor,
    BeitImageProcessor,
    BitImageProcessor,
    ClapFeatureExtractor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DeiTImageProcessor,
    DINOv3ViTImageProcessor,
    Siglip2ImageProcessor,
    SiglipImageProcessor,
    VideoMAEVideoProcessor,
    ViTImageProcessor,
    VJEPA2VideoProcessor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from epalm.errors import MediaError, UsageError
from epalm.extract.inputs.augment import VIEW_0, view_of
from epalm.extract.inputs.fit import Fit
from epalm.extract.inputs.log_mel import LogMelInput
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Pixels, VideoInput, WaveformInput
from epalm.extract.inputs.processors import timm_pixels, transformers_pixels
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames, read_frames
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared" / "media"
EQUAL = 1e-5  # of a pixel's range
PARAMETERS = {
    "feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "padding_value", "max_length_s",
    "fft_window_size", "frequency_min", "frequency_max", "top_db", "truncation", "padding",
}  # fmt: skip
SIZES = ((90, 61), (61, 90), (300, 20), (20, 21), (32, 32))
TIMM: dict[str, dict[str, Any]] = {
    "centre": {"crop_pct": 0.9, "interpolation": "bicubic"},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"},
    "squash and crop": {"crop_pct": 0.875, "crop_mode": "squash", "interpolation": "bilinear"},
    "border": {"crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"},
    "border and crop": {"crop_pct": 0.8, "crop_mode": "border", "interpolation": "lanczos"},
    "not square": {"input_size": (3, 48, 64), "crop_pct": 0.9, "interpolation": "bilinear"},
}
TRANSFORMERS: dict[str, Any] = {
    "CLIP": lambda side: CLIPImageProcessor(size={"shortest_edge": side}, crop_size=_square(side)),
    "SigLIP": lambda side: SiglipImageProcessor(size=_square(side)),
    "DINOv2": lambda side: BitImageProcessor(size={"shortest_edge": side * 8 // 7}, crop_size=_square(side)),
    "DINOv3": lambda side: DINOv3ViTImageProcessor(size=_square(side)),
    "DeiT": lambda side: DeiTImageProcessor(size=_square(side * 8 // 7), crop_size=_square(side)),
    "BEiT": lambda side: BeitImageProcessor(size=_square(side), do_center_crop=False),
    "ViT": lambda side: ViTImageProcessor(size=_square(side), resample=3),
    "unscaled": lambda side: ViTImageProcessor(size=_square(side), rescale_factor=1 / 127.5, image_mean=[1.0] * 3),
    "not normalised": lambda side: ViTImageProcessor(size=_square(side), do_normalize=False),
    "wider than its resize": lambda side: CLIPImageProcessor(
        size={"shortest_edge": side * 3 // 4}, crop_size=_square(side), resample=1
    ),
}
VIDEOS: dict[str, Any] = {
    "VideoMAE and TimeSformer": lambda side: VideoMAEVideoProcessor(
        size={"shortest_edge": side}, crop_size=_square(side), image_mean=[0.45] * 3, image_std=[0.225] * 3
    ),
    "V-JEPA 2": lambda side: VJEPA2VideoProcessor(crop_size=_square(side)),
}


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _shared(folder: str) -> list[Path]:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    return sorted((SHARED / folder).iterdir())


def _pictures(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def _assert_equal(read: Any, medium: Path, theirs: torch.Tensor) -> None:
    mine = read.normalise(torch.from_numpy(read(MediaFile(medium))))[0]
    assert mine.shape == theirs.shape
    assert ((mine - theirs).abs().max() * max(read.pixels.std)).item() < EQUAL


def _decoded(path: Path) -> np.ndarray:
    return np.array(read_image(MediaFile(path), Limits()).pixels)


@pytest.mark.parametrize("rule", TIMM)
@pytest.mark.parametrize("real", [False, True])
def test_pictures_as_timm_fits_them(rule: str, real: bool, tmp_path: Path) -> None:
    given = {"mean": (0.1, 0.5, 0.9), "std": (0.4, 0.5, 0.6), "input_size": (3, 40, 40) if not real else (3, 224, 224)}
    settings = timm.data.resolve_data_config(pretrained_cfg={**given, **TIMM[rule]})
    transform = timm.data.create_transform(**settings, is_training=False)
    read = ImageInput(timm_pixels(settings, "own"))
    for path in _shared("image") if real else _pictures(tmp_path):
        _assert_equal(read, path, transform(Image.fromarray(_decoded(path))))


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("real", [False, True])
def test_pictures_as_transformers_fits_them(family: str, real: bool, tmp_path: Path) -> None:
    processor = TRANSFORMERS[family](224 if real else 56)
    read = ImageInput(transformers_pixels(processor, "own"))
    for path in _shared("image") if real else _pictures(tmp_path):
        theirs = processor(images=[_decoded(path)], input_data_format="channels_last", return_tensors="pt")
        _assert_equal(read, path, theirs["pixel_values"][0])


@pytest.mark.parametrize("family", VIDEOS)
def test_clips_as_transformers_fits_them(family: str) -> None:
    processor = VIDEOS[family](112)
    read = VideoInput(transformers_pixels(processor, "own"), 4)
    for path in _shared("video"):
        (frames,) = read_frames(
            MediaFile(path), lambda total: [middle_frames(total, 4)], lambda _, one: np.array(one), Limits()
        )
        theirs = processor(videos=[np.stack(frames)], return_tensors="pt")
        _assert_equal(read, path, next(iter(theirs.values()))[0])


def _recordings() -> list[tuple[MediaFile, dict[int, np.ndarray]]]:
    """Real recordings, and as decoded at each rate that extractors ask for."""
    media = [MediaFile(path) for path in _shared("audio")]
    return [
        (one, {rate: read_waveform(one, Limits(), rate=rate, keep=10**9).samples for rate in (16_000, 48_000)})
        for one in media
    ]


def _range(values: np.ndarray) -> float:
    return float(values.max() - values.min())


@pytest.mark.parametrize(
    ("extractor", "mel_bins", "samples"),
    [
        (WhisperFeatureExtractor(), 80, 480_000),
        (WhisperFeatureExtractor(feature_size=128, chunk_length=8), 128, 128_000),
        (ClapFeatureExtractor(truncation="rand_trunc"), 64, 480_000),
        (ClapFeatureExtractor(truncation="fusion", padding="repeat"), 64, 480_000),
        (ClapFeatureExtractor(truncation="rand_trunc", padding="pad", max_length_s=15), 64, 720_000),
    ],
)
def test_log_mel_energies_as_the_extractor_gives_them(extractor: Any, mel_bins: int, samples: int) -> None:
    given = {key: value for key, value in extractor.to_dict().items() if key in PARAMETERS}
    read = LogMelInput(type(extractor).__name__, json.dumps(given), samples)
    assert {"n_fft", "fft_window_size"} & given.keys()
    for medium, waves in _recordings():
        # CLAP takes a stretch at random of what is longer: it gets no more than our first view looks at.
        wave = waves[extractor.sampling_rate][: samples if mel_bins == 64 else None]
        theirs = np.asarray(extractor(wave, sampling_rate=extractor.sampling_rate)["input_features"][0])
        mine = read.normalise(torch.from_numpy(read(medium))).numpy()[0]
        expected = theirs[-1] if theirs.ndim == 3 else theirs.T
        assert np.abs(mine[:, :-1] - expected).max() < EQUAL * _range(expected)
        real = min(len(mine), -(-len(wave) // extractor.hop_length))
        np.testing.assert_array_equal(mine[:, -1], np.arange(len(mine)) < real)


@pytest.mark.parametrize("unit", [True, False])
def test_waveforms_as_the_extractor_gives_them(unit: bool) -> None:
    extractor = Wav2Vec2FeatureExtractor(do_normalize=unit)
    read = WaveformInput(16_000, 20 * 16_000, 400, unit)
    for medium, waves in _recordings():
        wave = waves[16_000][: read.samples]
        theirs = extractor(wave, sampling_rate=16_000)["input_values"][0]
        mine = read.normalise(torch.from_numpy(read(medium))).numpy()[0]
        assert np.abs(mine[: len(wave)] - theirs).max() < EQUAL * _range(theirs)
        assert np.isnan(mine[len(wave) :]).all() and len(mine) == read.samples


def test_energies_of_ast_as_its_extractor_gives_them() -> None:
    """In float64 where there is no torchaudio; ours in float32, as torchaudio: logarithms of silence differ by more."""
    extractor = ASTFeatureExtractor()
    read = AudioInput(16_000, 128, 1024, extractor.mean, extractor.std)
    for medium, waves in _recordings():
        theirs = extractor(waves[16_000], sampling_rate=16_000)["input_values"][0]
        mine = read.normalise(torch.from_numpy(read(medium))).numpy()[0]
        logs = [one.astype(np.float64) * 2 * extractor.std + extractor.mean for one in (mine, theirs)]
        energies = [np.exp(one) for one in logs]
        assert np.abs(energies[0] - energies[1]).max() < EQUAL * _range(energies[1])
        assert np.abs(mine - theirs).max() < 2e-4 * _range(theirs)


def test_stretching_keeps_what_older_sets_are_named_by() -> None:
    settings = timm.data.resolve_data_config(pretrained_cfg={"input_size": (3, 16, 24)})
    pixels = timm_pixels(settings, "stretch")
    assert pixels == Pixels((16, 24), "bicubic", settings["mean"], settings["std"])
    assert pixels.describe().keys() == {"size", "interpolation", "mean", "std"}
    processor = TRANSFORMERS["DINOv2"](56)
    stretched, own = (transformers_pixels(processor, resize) for resize in ("stretch", "own"))
    assert stretched.size == own.size == (56, 56) and stretched.fit is None
    assert own.describe()["fit"] == {
        "edge": "shorter", "to": [64, 64], "colour": [0, 0, 0], "exact": False, "by": "torchvision"
    }  # fmt: skip


def test_steps_that_are_not_known_are_refused() -> None:
    padded = ViTImageProcessor(do_pad=True, pad_size=_square(300))
    for processor in (ConvNextImageProcessor(), padded, CLIPImageProcessor(do_center_crop=False)):
        with pytest.raises(UsageError, match=f"{type(processor).__name__}, has steps") as caught:
            transformers_pixels(processor, "own")
        assert caught.value.hint == "use --resize stretch"
        assert transformers_pixels(processor, "stretch").fit is None
    with pytest.raises(UsageError, match="has steps") as caught:
        transformers_pixels(Siglip2ImageProcessor(), "stretch")  # of no size
    assert caught.value.hint == "choose another encoder"


@pytest.mark.parametrize("family", ["CLIP", "DINOv3"])
def test_other_views_are_drawn_as_ever(family: str, tmp_path: Path) -> None:
    """The rule is view 0's: random crops fill the encoder's size by themselves."""
    pixels = transformers_pixels(TRANSFORMERS[family](56), "own")
    drawn, views = view_of("digest", 1, 7), []
    for read in (ImageInput(pixels), ImageInput(Pixels(pixels.size, pixels.interpolation, pixels.mean, pixels.std))):
        raw = read(MediaFile(_pictures(tmp_path)[0]), [VIEW_0, drawn])
        views.append(read.normalise(torch.from_numpy(raw)))
    torch.testing.assert_close(views[0][1], views[1][1])
    assert not torch.equal(views[0][0], views[1][0])


def test_a_strip_is_refused_before_it_is_resized(tmp_path: Path) -> None:
    """Resized to a shorter edge of 224, a line of pixels would fill the memory."""
    Image.new("L", (60_000, 1)).save(tmp_path / "line.png")
    read = ImageInput(Pixels((224, 224), "bicubic", (0.5,) * 3, (0.5,) * 3, Fit("shorter", (224, 224))))
    with pytest.raises(MediaError, match="13440000×224 pixels") as caught:
        read(MediaFile(tmp_path / "line.png"))
    assert "--max-pixels" in str(caught.value.hint)


@pytest.mark.parametrize("extractor", ["WhisperFeatureExtractor", "ClapFeatureExtractor"])
def test_a_recording_of_which_resampling_leaves_nothing_is_refused(extractor: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(1, 0.1), 192_000)
    with pytest.raises(MediaError, match="too short"):
        LogMelInput(extractor, "{}", 480_000)(MediaFile(tmp_path / "a.wav"))


def test_libraries_are_there_before_a_decoding_processs_memory_is_limited() -> None:
    """They come with the input that a process is sent, and only where it needs them."""
    timm_like = Pixels((8, 8), "bicubic", (0.5,) * 3, (0.5,) * 3, Fit("shorter", (9, 9)))
    own = transformers_pixels(TRANSFORMERS["CLIP"](56), "own")
    code = "import pickle, sys; pickle.load(sys.stdin.buffer); print(*({'torch', 'torchvision'} & sys.modules.keys()))"
    for pixels, needed in ((timm_like, set()), (own, {"torch", "torchvision"})):
        sent = pickle.dumps(ImageInput(pixels))
        done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
        assert set(done.stdout.decode().split()) == needed
