"""Every codec in every container is read to its end, as the `ffmpeg` command decodes it; a part of one is noticed."""

import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.audio import read_waveform
from epalm.extract.limits import Limits
from epalm.extract.media_warnings import collected_warnings
from epalm.media import MediaFile
from tests.shared_files import program, shared_case

RATE = 16_000
PCM = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# Name → codec, container, and options of the container: what announces a length, and what does not.
ANNOUNCED = {
    "pcm.wav": ("pcm_s16le", "wav", {}),
    "ms.wav": ("adpcm_ms", "wav", {}),
    "ima.wav": ("adpcm_ima_wav", "wav", {}),
    "yamaha.wav": ("adpcm_yamaha", "wav", {}),
    "mp3.wav": ("libmp3lame", "wav", {}),
    "mp2.wav": ("mp2", "wav", {}),
    "ac3.wav": ("ac3", "wav", {}),
    "pcm.rf64": ("pcm_s24le", "wav", {"rf64": "always"}),
    "pcm.w64": ("pcm_s16le", "w64", {}),
    "pcm.aiff": ("pcm_s16be", "aiff", {}),
    "float.aiff": ("pcm_f32be", "aiff", {}),
    "ulaw.au": ("pcm_mulaw", "au", {}),
    "pcm.caf": ("pcm_s16le", "caf", {}),
    "a.flac": ("flac", "flac", {}),
    "a.wv": ("wavpack", "wv", {}),
    "a.tta": ("tta", "tta", {}),
    "vorbis.ogg": ("vorbis", "ogg", {}),
    "a.opus": ("libopus", "opus", {}),
    "a.mp3": ("libmp3lame", "mp3", {}),
    "aac.m4a": ("aac", "mp4", {}),
    "alac.m4a": ("alac", "mp4", {}),
    "flac.mka": ("flac", "matroska", {}),
    "opus.webm": ("libopus", "webm", {}),
}
UNANNOUNCED = {
    "bare.mp3": ("libmp3lame", "mp3", {"write_xing": "0"}),
    "a.aac": ("aac", "adts", {}),
    "a.ac3": ("ac3", "ac3", {}),
    "a.mp2": ("mp2", "mp2", {}),
}
FORMATS = ANNOUNCED | UNANNOUNCED


def _sound(seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, len(times))
    return (0.4 * np.sin(2 * np.pi * (300 + 400 * times) * times) + noise).astype(np.float32)


def _encode(path: Path, codec: str, container: str, options: dict[str, str]) -> None:
    if codec == "vorbis":  # which PyAV does not write well
        soundfile.write(path, _sound(), RATE, format="OGG", subtype="VORBIS")
        return
    rate = {"ac3": 32_000, "libopus": 48_000}.get(codec, RATE)
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(_sound(rate=rate)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    for name, (codec, container, options) in FORMATS.items():
        _encode(folder / name, codec, container, options)
    return {name: folder / name for name in FORMATS}


def _read(path: Path, rate: int = RATE) -> np.ndarray:
    return read_waveform(MediaFile(path), Limits(), rate=rate, keep=1 << 30).samples


def _warnings(path: Path) -> list[str]:
    with collected_warnings() as warnings:
        _read(path)
    return [warning.message for warning in warnings]


def _with_ffmpeg(paths: list[Path]) -> list[np.ndarray]:
    """What the `ffmpeg` command decodes each to, at the file's own rate."""
    command = [program("ffmpeg"), "-v", "fatal", *(word for path in paths for word in ("-i", str(path)))]
    for number, path in enumerate(paths):
        command += ["-map", f"{number}:a:0", "-f", "f32le", f"{path}.f32"]
    subprocess.run(command, check=True)
    return [np.fromfile(f"{path}.f32", np.float32) for path in paths]


@pytest.fixture(scope="module")
def of_ffmpeg(whole: dict[str, Path]) -> dict[str, np.ndarray]:
    return dict(zip(whole, _with_ffmpeg(list(whole.values())), strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_every_codec_in_every_container(whole: dict[str, Path], of_ffmpeg: dict[str, np.ndarray], name: str) -> None:
    with av.open(str(whole[name])) as file:
        rate = file.streams.audio[0].rate
    ours = _read(whole[name], rate)
    assert len(ours) == len(of_ffmpeg[name])
    np.testing.assert_allclose(ours, of_ffmpeg[name], atol=1e-3)  # decoders of several releases
    assert _warnings(whole[name]) == []


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "NIST"])
def test_uncompressed_samples_are_exact(tmp_path: Path, container: str) -> None:
    """As libsndfile, which read them before, gives them."""
    sound = np.stack([_sound(0.1), 0.9 - _sound(0.1), _sound(0.1) / 3], axis=1)
    for subtype in PCM:
        for channels in (1, 2, 3):
            if not soundfile.check_format(container, subtype):
                continue
            soundfile.write(tmp_path / "a", sound[:, :channels], RATE, subtype, format=container)
            expected = soundfile.read(tmp_path / "a", dtype="float32", always_2d=True)[0].mean(axis=1)
            np.testing.assert_array_equal(_read(tmp_path / "a"), expected)


@pytest.mark.parametrize("name", ANNOUNCED)
def test_a_part_is_noticed(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    content = whole[name].read_bytes()
    for percent in (45, 50, 60, 94):
        (tmp_path / name).write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(MediaError, match="cut off"):
            _read(tmp_path / name)


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(FORMATS)), share=st.floats(0.001, 0.95))
def test_any_part_is_noticed_or_the_beginning(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Path], name: str, share: float
) -> None:
    content = whole[name].read_bytes()
    path = tmp_path_factory.mktemp("part") / name
    path.write_bytes(content[: max(1, int(len(content) * share))])
    try:
        part = _read(path)
    except MediaError as error:
        assert error.hint
    else:
        assert name in UNANNOUNCED
        assert len(part) < 0.96 * RATE
        length = max(0, len(part) - 2304)  # the last frames overlap with what is missing
        np.testing.assert_allclose(part[:length], _read(whole[name])[:length], atol=1e-3)


# Where a header has the size of the samples, behind which bytes, and how it is written.
SIZES = {
    "pcm.wav": (b"data", 0, "<I"),
    "pcm.rf64": (b"ds64", 12, "<Q"),
    "pcm.w64": (bytes.fromhex("f3acd3118cd100c04f8edb8a"), 0, "<Q"),
    "pcm.aiff": (b"SSND", 0, ">I"),
    "pcm.caf": (b"data", 0, ">Q"),
    "ulaw.au": (b".snd", 4, ">I"),
}
PLACEHOLDERS = {"pcm.wav": (0, 0x80000000), "pcm.caf": (0, (1 << 64) - 1), "pcm.aiff": (0x80000000,)}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_their_writers_did_not_know(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    expected = _read(whole[name])
    content = bytearray(whole[name].read_bytes())
    mark, behind, form = SIZES[name]
    place = content.rindex(mark) + len(mark) + behind
    size = struct.unpack_from(form, content, place)[0]
    counted = 24 if name == "pcm.w64" else 0  # bytes before the samples that this size counts, too
    for placeholder in (2 * size - counted, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, *PLACEHOLDERS.get(name, ())):
        struct.pack_into(form, content, place, placeholder)
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(_read(tmp_path / name), expected, err_msg=hex(placeholder))
    struct.pack_into(form, content, place, size + 2)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match="cut off"):
        _read(tmp_path / name)


def test_an_empty_wav_has_no_samples_whatever_comes_behind(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _sound()[:0], RATE)
    content = (tmp_path / "a.wav").read_bytes()
    for behind in (
        b"",
        b"LIST" + struct.pack("<I", 200) + b"INFO" + bytes(196),
        b"odd " + struct.pack("<I", 1) + b"\1\0",
    ):
        (tmp_path / "a.wav").write_bytes(content + behind)
        with pytest.raises(MediaError, match="no samples"):
            _read(tmp_path / "a.wav")


@pytest.mark.parametrize("container", ["OGG", "MP3"])
def test_recordings_one_behind_the_other_are_read_to_the_end(tmp_path: Path, container: str) -> None:
    for name, sound in (("a", _sound()), ("b", _sound()[::-1])):
        soundfile.write(tmp_path / name, sound, RATE, format=container)
    (tmp_path / "both").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    both = _read(tmp_path / "both")
    # What an encoder put before and behind the sound stays where two parts meet.
    assert 0 <= len(both) - 2 * len(_sound()) < 3000
    (theirs,) = _with_ffmpeg([tmp_path / "both"])
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
    assert len(_read(shared_case(case) / name, rate)) == length


@pytest.mark.parametrize("name", ["trunc.wav", "trunc.mp3"])
def test_what_passed_though_cut_off(name: str) -> None:
    with pytest.raises(MediaError, match="cut off"):
        _read(shared_case("truncated-sound") / name)


@pytest.mark.parametrize("channels", [(1, -1), (1, -1.001), (0.3, 0.3, -0.6)])
def test_channels_that_cancel_each_other_out_get_a_warning(tmp_path: Path, channels: tuple[float, ...]) -> None:
    soundfile.write(tmp_path / "a.wav", _sound()[:, None] * channels, RATE, subtype="FLOAT")
    (warning,) = _warnings(tmp_path / "a.wav")
    assert "cancel each other out" in warning


@pytest.mark.parametrize("channels", [(1, 1), (1, 0), (1, -0.5), (0, 0), (1,)])
def test_other_channels_get_none(tmp_path: Path, channels: tuple[float, ...]) -> None:
    soundfile.write(tmp_path / "a.wav", _sound()[:, None] * channels, RATE, subtype="FLOAT")
    assert _warnings(tmp_path / "a.wav") == []


def test_a_hole_is_left_out_with_a_warning(tmp_path: Path, whole: dict[str, Path]) -> None:
    content = bytearray(whole["a.aac"].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    (tmp_path / "a.aac").write_bytes(content)
    assert any("do not decode" in warning for warning in _warnings(tmp_path / "a.aac"))
