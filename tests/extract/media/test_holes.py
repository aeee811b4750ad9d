"""Clips that lost a part: a row of what is left and a warning of how much; none for clips that are whole."""

import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epalm.extract.media.limits import MediaWarning, collected_warnings
from tests.clips import numbered_frames, read_clip, write_clip
from tests.conftest import Epalm
from tests.shared_files import shared_case

COUNT = 40
CODECS = {
    "mp4": "libx264",
    "mov": "libx265",
    "mkv": "libx264",
    "webm": "libvpx-vp9",
    "ts": "libx264",
    "flv": "libx264",
    "nut": "libx264",
    "avi": "mpeg4",
    "mpg": "mpeg2video",
    "wmv": "wmv2",
}
HOLES = [
    pytest.param(extension, begin, end, marks=() if begin == 0.4 else pytest.mark.slow)
    for extension in CODECS
    for begin, end in ((0.2, 0.4), (0.4, 0.6), (0.7, 0.9))
    if (extension, end) != ("mpg", 0.9)  # behind which no frame begins, so that nothing announces any
]
_RNG = np.random.default_rng(0)
NOISE = [_RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(COUNT)]


def _write(path: Path, frames: Sequence[np.ndarray] = NOISE, times: Sequence[int] | None = None) -> Path:
    codec = CODECS[path.suffix[1:]]
    options = {"g": "8"} | ({"x265-params": "log-level=none:keyint=8"} if codec == "libx265" else {"qp": "20"})
    rate = 25 if codec == "mpeg2video" else 10  # MPEG-2 knows few rates
    return write_clip(path, frames, codec=codec, rate=rate, times=times, pix_fmt="yuv420p", options=options)


def _with_hole(path: Path, begin: float, end: float) -> Path:
    """A copy without what lies between these shares of the file."""
    content = path.read_bytes()
    first, last = int(begin * len(content)), int(end * len(content))
    holed = path.with_name(f"holed{path.suffix}")
    holed.write_bytes(content[:first] + bytes(last - first) + content[last:])
    return holed


def _read(path: Path) -> tuple[int, list[MediaWarning]]:
    with collected_warnings() as warnings:
        return len(read_clip(path)), warnings


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {extension: _write(folder / f"a.{extension}") for extension in CODECS}


@pytest.mark.parametrize(("extension", "begin", "end"), HOLES)
def test_a_hole_is_told_with_what_is_announced_and_what_decodes(
    clips: dict[str, Path], extension: str, begin: float, end: float
) -> None:
    path = clips[extension]
    whole, warnings = _read(path)
    assert not warnings
    decoded, warnings = _read(_with_hole(path, begin, end))
    assert decoded < whole
    message = next(one.message for one in warnings if "holes" in one.message)
    figures = [int(word) for word in message.split() if word.isdigit()]
    assert figures[1] == decoded
    assert abs(figures[0] - whole) <= 4


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm"])
def test_a_hole_in_a_part_of_which_no_frame_is_wanted_is_told_too(clips: dict[str, Path], extension: str) -> None:
    with collected_warnings() as warnings:
        frames = read_clip(_with_hole(clips[extension], 0.5, 0.7), [1, 2])
    assert len(frames) == 2
    assert any("holes" in one.message for one in warnings)


def test_fragments_behind_a_hole_are_told(tmp_path: Path) -> None:
    how = {"movflags": "frag_keyframe+empty_moov"}
    path = write_clip(tmp_path / "a.mp4", NOISE, pix_fmt="yuv420p", options={"qp": "20"}, container=how)
    assert _read(path) == (COUNT, [])
    (tmp_path / "reserved.mp4").write_bytes(path.read_bytes() + bytes(100_000))
    assert _read(tmp_path / "reserved.mp4") == (COUNT, [])
    content = bytearray(path.read_bytes())
    fragment = [place for place in range(len(content)) if content[place : place + 4] == b"moof"][4] - 4
    content[fragment : fragment + 200] = bytes(200)
    (tmp_path / "holed.mp4").write_bytes(content)
    decoded, warnings = _read(tmp_path / "holed.mp4")
    assert decoded < COUNT
    assert any("no fragment begins" in one.message for one in warnings)


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv"])
def test_a_hole_of_a_part_of_a_frame_is_told(clips: dict[str, Path], extension: str) -> None:
    _, warnings = _read(_with_hole(clips[extension], 0.5, 0.505))
    assert warnings


@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "ts", "flv", "nut"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from([33, 34, 40, 66, 100, 500, 4_000, 60_000]), min_size=5, max_size=24))
def test_clips_of_varying_rate_are_whole(tmp_path: Path, extension: str, steps: list[int]) -> None:
    times = np.cumsum([0, *steps]).tolist()
    count, warnings = _read(_write(tmp_path / f"a.{extension}", numbered_frames(len(times)), times))
    assert (count, warnings) == (len(times), [])


@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "ts", "flv", "avi"])
def test_recordings_of_screens_are_whole(tmp_path: Path, extension: str) -> None:
    """Most frames at one rate, and stills between."""
    times = np.cumsum([0, *[40] * 12, 9_000, *[40] * 9, 30_000, *[40] * 8, 20_000, 40]).tolist()
    frames = [NOISE[number % COUNT] for number in range(len(times))]
    count, warnings = _read(_write(tmp_path / f"a.{extension}", frames, times))
    assert (count, warnings) == (len(times), [])


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_picture_that_stands_while_the_sound_goes_on_is_whole(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        assert isinstance(sound, AudioStream)
        for pixels in numbered_frames(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        noise = _RNG.normal(0, 0.1, (1, 1024)).astype(np.float32)
        for number in range(100):
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert _read(path) == (5, [])


def test_a_recording_that_begins_between_key_frames_is_whole(clips: dict[str, Path]) -> None:
    content = clips["ts"].read_bytes()
    start = len(content) // 188 // 3 * 188
    path = clips["ts"].with_name("late.ts")
    path.write_bytes(content[: 3 * 188] + content[start:])
    count, warnings = _read(path)
    assert 10 < count < COUNT
    assert not [one for one in warnings if "holes" in one.message]


def test_given_clip_as_typed(tmp_path: Path, epalm: Epalm, small_vit: Path) -> None:
    """It says 4 s, which are 40 frames, and 15 come out."""
    folder = shared_case("damaged-inside")
    (tmp_path / "media").mkdir()
    (tmp_path / "media/hole.webm").write_bytes((folder / "hole_vp9.webm").read_bytes())
    encoder = ("--encoder", "vit-frames", "--weights", small_vit, "--layers", "0", "--workers", 0)
    words = ("extract", "-m", "video", "--data", tmp_path / "media", *encoder, "--cache", tmp_path / "cache")
    done = epalm(*words)
    assert done.code == 0 and "1 encoded, 0 bad, 1 with a warning" in done.err
    (entry,) = json.loads(epalm("cache", "ledger", "--cache", tmp_path / "cache", "--json").out)
    assert "about 40 frames, and 15 decode" in entry["error"] and entry["warning"]
    assert epalm(*words, "--strict-media").code == 3
