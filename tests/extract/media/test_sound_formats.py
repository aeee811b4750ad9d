"""Every codec in every container is read to its end, as the `ffmpeg` command decodes it."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.shared_files import shared_case
from tests.sounds import FORMATS, RATE, RATES, decode_with_ffmpeg, encode_all, read, tone, warnings_about

PCM = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return encode_all(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def of_ffmpeg(whole: dict[str, Path]) -> dict[str, np.ndarray]:
    return dict(zip(whole, decode_with_ffmpeg(list(whole.values())), strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_every_codec_in_every_container(whole: dict[str, Path], of_ffmpeg: dict[str, np.ndarray], name: str) -> None:
    ours = read(whole[name], RATES.get(FORMATS[name][0], RATE))
    assert len(ours) == len(of_ffmpeg[name])
    np.testing.assert_allclose(ours, of_ffmpeg[name], atol=1e-3)  # decoders of several releases
    assert warnings_about(whole[name]) == []


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "NIST"])
def test_uncompressed_samples_are_exact(tmp_path: Path, container: str) -> None:
    """As libsndfile, which read them before, gives them."""
    sound = np.stack([tone(0.1), 0.9 - tone(0.1), tone(0.1) / 3], axis=1)
    for subtype in PCM:
        for channels in (1, 2, 3):
            if not soundfile.check_format(container, subtype):
                continue
            soundfile.write(tmp_path / "a", sound[:, :channels], RATE, subtype, format=container)
            expected = soundfile.read(tmp_path / "a", dtype="float32", always_2d=True)[0].mean(axis=1)
            np.testing.assert_array_equal(read(tmp_path / "a"), expected)


@pytest.mark.parametrize("container", ["OGG", "MP3"])
def test_recordings_one_behind_the_other_are_read_to_the_end(tmp_path: Path, container: str) -> None:
    for name, sound in (("a", tone()), ("b", tone()[::-1])):
        soundfile.write(tmp_path / name, sound, RATE, format=container)
    (tmp_path / "both").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    both = read(tmp_path / "both")
    # What an encoder put before and behind the sound stays where two parts meet.
    assert 0 <= len(both) - 2 * len(tone()) < 3000
    (theirs,) = decode_with_ffmpeg([tmp_path / "both"])
    assert len(both) == len(theirs)
    assert (np.abs(both - theirs) > 1e-4).mean() < 0.02  # releases fade from part to part in other ways


@pytest.mark.parametrize(
    ("case", "name", "rate", "length"),
    [
        ("mp3-without-length-header", "vbr_noxing.mp3", 16_000, 41_472),
        ("mp3-without-length-header", "piped.mp3", 16_000, 41_472),
        ("chained-or-joined-audio", "chained.ogg", 16_000, 80_256),
        ("wav-codecs", "aacin.wav", 16_000, 39_936),
        ("wav-codecs", "ac3in.wav", 32_000, 81_408),
        ("wav-codecs", "mp2in.wav", 16_000, 40_320),
        ("wav-size-zero", "hdr_zero.wav", 16_000, 40_000),
    ],
)
def test_what_was_cut_or_refused(case: str, name: str, rate: int, length: int) -> None:
    assert len(read(shared_case(case) / name, rate)) == length


@pytest.mark.parametrize("name", ["a.mp3", "bare.mp3", "a.aac", "a.flac", "pcm.wav", "pcm.aiff", "a.wv"])
def test_tags_before_and_behind_any_format(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, len(noise) + 32, 1, 1 << 31)
    expected, content = read(whole[name]), whole[name].read_bytes()
    (tmp_path / name).write_bytes(b"ID3\4\0\0\0\0\x27\x08" + noise + content + noise + ape + b"TAG" + bytes(125))
    tagged = read(tmp_path / name)
    assert 0 <= len(tagged) - len(expected) < 200  # FFmpeg keeps what was put behind an MP3's sound, not knowing where
    np.testing.assert_allclose(tagged[: len(expected)], expected, atol=1e-4)


@pytest.mark.parametrize("channels", [(1, -1), (1, -1.001), (0.3, 0.3, -0.6)])
def test_channels_that_cancel_each_other_out_get_a_warning(tmp_path: Path, channels: tuple[float, ...]) -> None:
    soundfile.write(tmp_path / "a.wav", tone()[:, None] * channels, RATE, subtype="FLOAT")
    (warning,) = warnings_about(tmp_path / "a.wav")
    assert "cancel each other out" in warning


@pytest.mark.parametrize("channels", [(1, 1), (1, 0), (1, -0.5), (0, 0), (1,)])
def test_other_channels_get_none(tmp_path: Path, channels: tuple[float, ...]) -> None:
    soundfile.write(tmp_path / "a.wav", tone()[:, None] * channels, RATE, subtype="FLOAT")
    assert warnings_about(tmp_path / "a.wav") == []
