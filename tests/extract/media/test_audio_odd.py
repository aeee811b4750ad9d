"""Recordings that are lawful and unusual, and headers that lie: sound, or an error that says what to do."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream

from epalm.errors import MediaError
from epalm.extract.inputs.preprocess import AudioInput
from epalm.extract.media.audio import Waveform, read_waveform
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile

RATE = 16_000
TONE = (0.5 * np.sin(0.1 * np.arange(RATE))).astype(np.float32)


def _read(path: Path, limits: Limits | None = None) -> Waveform:
    return read_waveform(MediaFile(path), limits or Limits(), rate=RATE, keep=10 * RATE)


def _with_header(path: Path, *, rate: int = RATE, size: int | None = None) -> Path:
    """A WAV of the tone whose header says what it is told to."""
    soundfile.write(path, TONE, RATE)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    if size is not None:
        content[4:8] = content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0, 1 << 30])
def test_wav_that_claims_any_size(tmp_path: Path, size: int) -> None:
    """Recorders that write to a pipe cannot know it, and say the largest that there is."""
    np.testing.assert_allclose(_read(_with_header(tmp_path / "a.wav", size=size)).samples, TONE, atol=1e-4)


def test_flac_of_unknown_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", TONE, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # STREAMINFO's count of samples, 36 bits: 0 is unknown
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    np.testing.assert_allclose(_read(tmp_path / "a.flac").samples, TONE, atol=1e-4)


@pytest.mark.parametrize("name", ["a.raw", "a.vox", "a.gsm", "a.jpg", "a"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, name: str) -> None:
    _with_header(tmp_path / "a.wav").rename(tmp_path / name)
    np.testing.assert_allclose(_read(tmp_path / name).samples, TONE, atol=1e-4)
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(MediaError, match="cannot be decoded"):
        _read(tmp_path / name)


@pytest.mark.parametrize("rate", [100, 1_000, 384_000, 10_000_000])
def test_extreme_rates(tmp_path: Path, rate: int) -> None:
    samples = _read(_with_header(tmp_path / "a.wav", rate=rate)).samples
    assert abs(len(samples) - min(10 * RATE, RATE * RATE / rate)) <= 1


@pytest.mark.parametrize("rate", [1, 99, 10_000_001, 2**31 - 1])
def test_absurd_rates(tmp_path: Path, rate: int) -> None:
    with pytest.raises(MediaError, match=f"rate is {rate} Hz"):
        _read(_with_header(tmp_path / "a.wav", rate=rate))


def test_little_is_made_of_a_slow_recording_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling may multiply samples: pieces are such that what comes out is no more than a piece."""
    noise = np.random.default_rng(0).normal(0, 0.1, 100 * 30).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 100, subtype="FLOAT")
    whole = _read(tmp_path / "a.wav")
    monkeypatch.setattr("epalm.extract.media.audio.PIECE", 4096)
    np.testing.assert_allclose(_read(tmp_path / "a.wav").samples, whole.samples, atol=1e-5)


@pytest.mark.parametrize(
    ("codec", "kind", "values"),
    [
        ("pcm_u8", "u8", (TONE * 127 + 128).astype(np.uint8)),
        ("pcm_s16le", "s16", (TONE * 32767).astype(np.int16)),
        ("pcm_s32le", "s32", (TONE.astype(np.float64) * (2**31 - 1)).astype(np.int32)),
        ("pcm_f32le", "flt", TONE),
        ("pcm_f64le", "dbl", TONE.astype(np.float64)),
        ("flac", "s16", (TONE * 32767).astype(np.int16)),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_every_kind_of_sample_in_a_container(
    tmp_path: Path, codec: str, kind: str, values: np.ndarray, layout: str
) -> None:
    with av.open(str(tmp_path / "a.mka"), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        assert isinstance(stream, AudioStream)
        for start in range(0, RATE, 1000):
            piece = np.repeat(values[start : start + 1000], 2 if layout == "stereo" else 1)
            frame = av.AudioFrame.from_ndarray(piece[None], format=kind, layout=layout)
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(_read(tmp_path / "a.mka").samples, TONE, atol=0.02)


@pytest.mark.parametrize(
    ("channels", "container", "subtype"),
    [
        (16, "WAV", "DOUBLE"),
        (256, "WAV", "PCM_16"),
        (8, "FLAC", "PCM_16"),
        (12, "OGG", "VORBIS"),
        (60, "OGG", "VORBIS"),
    ],
)
def test_many_channels(tmp_path: Path, channels: int, container: str, subtype: str) -> None:
    soundfile.write(tmp_path / "a", np.repeat(TONE[:, None], channels, axis=1), RATE, subtype, format=container)
    np.testing.assert_allclose(_read(tmp_path / "a").samples, TONE, atol=2e-2 if container == "OGG" else 1e-4)


def test_too_many_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((10, 257)), RATE)
    with pytest.raises(MediaError, match="257 channels"):
        _read(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_too_long_by_its_own_word(tmp_path: Path, name: str) -> None:
    if name == "a.m4a":
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            assert isinstance(stream, AudioStream)
            frame = av.AudioFrame.from_ndarray(TONE[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        soundfile.write(tmp_path / name, TONE, RATE)
    _read(tmp_path / name, Limits(max_seconds=1.1))
    with pytest.raises(MediaError, match=r"lasts 1 s or more: more than 1 s|more than 0 s") as refusal:
        _read(tmp_path / name, Limits(max_seconds=0.4))
    assert "--max-seconds" in str(refusal.value.hint)


def test_too_long_though_it_does_not_say_so(tmp_path: Path) -> None:
    """A FLAC of unknown length that goes on and on."""
    soundfile.write(tmp_path / "a.flac", np.tile(TONE, 30), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(MediaError, match="or more: more than 3 s"):
        _read(tmp_path / "a.flac", Limits(max_seconds=3))


@pytest.mark.parametrize("loudness", [1e6, 1e18, 1e30, 1e300])
def test_absurdly_loud(tmp_path: Path, loudness: float) -> None:
    soundfile.write(tmp_path / "a.wav", TONE.astype(np.float64) * loudness, RATE, subtype="DOUBLE")
    try:
        bank = AudioInput(RATE, 64, 128, 0.0, 1.0)(MediaFile(tmp_path / "a.wav"))
    except MediaError as error:
        assert loudness > 1e12
        assert error.hint
    else:
        assert np.isfinite(bank).all()
