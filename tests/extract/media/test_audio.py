"""Any recording becomes mono sound at the encoder's rate, then the filter bank that AST was trained on."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from av.audio.stream import AudioStream
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.inputs.filterbank import filter_bank, fit_frames, samples_for
from epalm.extract.inputs.preprocess import AudioInput
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared"
RATE = 16_000
LIMITS = Limits()


def _tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def _normalised(read: AudioInput, path: Path) -> np.ndarray:
    raw = read(MediaFile(path))
    assert raw.dtype == np.float32
    array: np.ndarray = read.normalise(torch.from_numpy(raw))[0].numpy()
    return array


def _pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * RATE / len(samples)


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "channels"),
    [
        ("a.wav", "PCM_16", 16_000, 1),
        ("a.wav", "PCM_24", 48_000, 2),
        ("a.wav", "PCM_U8", 8_000, 1),
        ("a.wav", "FLOAT", 44_100, 8),
        ("a.flac", "PCM_24", 96_000, 2),
        ("a.ogg", "VORBIS", 44_100, 2),
        ("a.mp3", "MPEG_LAYER_III", 22_050, 1),
        ("a.aiff", "PCM_16", 11_025, 3),
    ],
)
def test_formats_rates_and_channels(tmp_path: Path, name: str, subtype: str, rate: int, channels: int) -> None:
    sound = np.repeat(_tone(440, rate)[:, None], channels, axis=1)
    soundfile.write(tmp_path / name, sound, rate, subtype=subtype)
    wave = read_waveform(MediaFile(tmp_path / name), LIMITS, rate=RATE, keep=10 * RATE)
    assert wave.samples.dtype == np.float32
    assert abs(len(wave.samples) - RATE) < 0.15 * RATE  # MP3 pads
    assert abs(_pitch(wave.samples) - 440) < 2
    assert 0.4 < np.abs(wave.samples[4000:12000]).max() < 0.6


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = _tone(300, RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left, left], axis=1), RATE, subtype="FLOAT")
    wave = read_waveform(MediaFile(tmp_path / "a.wav"), LIMITS, rate=RATE, keep=RATE)
    np.testing.assert_allclose(wave.samples, left / 3, atol=1e-3)


@pytest.mark.parametrize(("name", "codec", "rate"), [("a.m4a", "aac", 48_000), ("a.mka", "ac3", 44_100)])
def test_sound_of_containers_for_clips(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        assert isinstance(stream, AudioStream)
        sound = np.repeat(_tone(600, rate)[None], 2, axis=0)
        for start in range(0, sound.shape[1], 1024):
            piece = np.ascontiguousarray(sound[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    wave = read_waveform(MediaFile(tmp_path / name), LIMITS, rate=RATE, keep=10 * RATE)
    assert abs(_pitch(wave.samples) - 600) < 3


def test_the_mean_is_of_the_whole_recording_and_only_the_beginning_is_kept(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(RATE * 20), np.full(RATE * 20, 0.5)]).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    wave = read_waveform(MediaFile(tmp_path / "a.wav"), LIMITS, rate=RATE, keep=RATE)
    assert len(wave.samples) == RATE
    assert abs(wave.mean - 0.25) < 1e-4


@settings(max_examples=20)
@given(seconds=st.floats(0.03, 3.0), rate=st.sampled_from([8_000, 16_000, 22_050, 48_000]))
def test_the_input_has_one_shape(tmp_path_factory: pytest.TempPathFactory, seconds: float, rate: int) -> None:
    path = tmp_path_factory.mktemp("sound") / "a.wav"
    soundfile.write(path, _tone(500, rate, seconds), rate)
    array = _normalised(AudioInput(RATE, 64, 128, -4.2677393, 4.5689974), path)
    assert array.shape == (128, 64)
    assert array.dtype == np.float32
    assert np.isfinite(array).all()


def test_cutting_the_sound_first_changes_no_frame() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    whole = filter_bank(sound, rate=RATE, mel_bins=64, mean=0.01)[:100]
    cut = filter_bank(sound[: samples_for(100, RATE)], rate=RATE, mel_bins=64, mean=0.01)
    assert cut.shape == (100, 64)
    assert (np.abs(cut - whole) <= np.maximum(1e-5, _rounding(whole))).all()


def test_padding_comes_before_normalising(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _tone(500, RATE, 0.1), RATE)
    array = _normalised(AudioInput(RATE, 128, 1024, -4.2677393, 4.5689974), tmp_path / "a.wav")
    np.testing.assert_allclose(array[-1], 4.2677393 / (2 * 4.5689974), rtol=1e-6)


def test_fit_frames() -> None:
    bank = np.ones((5, 3), np.float32)
    assert fit_frames(bank, 2).shape == (2, 3)
    assert fit_frames(bank, 8).sum() == 15


def _rounding(bank: np.ndarray) -> np.ndarray:
    """How far float32 transforms may be apart in each bin: their errors are relative to the frame's loudest one.

    More than 1e-3 only where a bin has less than 6e-8 of its energy.
    """
    loudest = bank.max(axis=1, keepdims=True)
    rounding: np.ndarray = 2 * np.finfo(np.float32).eps * np.exp((loudest - bank) / 2)
    return rounding


@pytest.mark.parametrize("transform", ["float32", "float64"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_filter_bank_parity(rate: int, transform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 1e-3, but for bins so silent that rounding decides: processors round in other ways, float64 hardly."""
    from safetensors.numpy import load_file

    path = SHARED / "parity" / "audio_fbank.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    if transform == "float64":
        rfft = torch.fft.rfft
        monkeypatch.setattr(torch.fft, "rfft", lambda frames, size: rfft(frames.double(), size).to(torch.complex64))
    numbers = load_file(path)
    expected = numbers[f"fbank_{rate}"]
    bank = filter_bank(numbers[f"waveform_{rate}"], rate=rate, mel_bins=128)
    rounding = _rounding(expected)
    assert (rounding > 1e-3).mean() < 0.05
    assert (np.abs(bank - expected) <= np.maximum(1e-3, rounding)).all()


def test_real_recordings() -> None:
    folder = SHARED / "media" / "audio"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for path in sorted(folder.iterdir()):
        array = _normalised(AudioInput(RATE, 128, 1024, -4.2677393, 4.5689974), path)
        assert array.shape == (1024, 128)
        assert array.std() > 0.1


def test_no_samples_no_sound_no_numbers(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    (tmp_path / "text.mp3").write_text("no sound at all\n" * 40)
    (tmp_path / "empty.wav").touch()
    for name, reason in (
        ("zero.wav", "no samples"),
        ("nan.wav", "not numbers"),
        ("text.mp3", "cannot be decoded"),
        ("empty.wav", "empty"),
        ("none.wav", "does not exist"),
    ):
        with pytest.raises(MediaError, match=reason):
            read_waveform(MediaFile(tmp_path / name), LIMITS, rate=RATE, keep=RATE)


def test_shorter_than_one_window(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.float32), RATE)
    with pytest.raises(MediaError, match="shorter than one window"):
        AudioInput(RATE, 64, 128, 0.0, 1.0)(MediaFile(tmp_path / "a.wav"))


def test_a_truncated_flac_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.flac", noise, RATE)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError):
        read_waveform(MediaFile(tmp_path / "a.flac"), LIMITS, rate=RATE, keep=RATE * 10)
