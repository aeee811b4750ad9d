"""Frames found by seeking are the very pixels that decoding the clip from its beginning gives."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.media import packets as packets_module
from epalm.extract.media.containers import open_container
from epalm.extract.media.limits import Limits
from epalm.extract.media.packets import DoubtError, index_packets, seek_frames
from epalm.extract.media.video import middle_frames, read_frames
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared" / "media" / "video"
COUNT = 60
# name → codec, its options, and what else is particular
CLIPS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "all-key.mp4": ("libx264", {"g": "1"}, {}),
    "two.mkv": ("libx264", {"g": "2", "bf": "0"}, {}),
    "b-frames.mp4": ("libx264", {"g": "12", "bf": "3"}, {}),
    "b-frames.mov": ("libx264", {"g": "5", "bf": "3"}, {}),
    "pyramid.mkv": ("libx264", {"x264-params": "b-pyramid=normal:bframes=7:keyint=20:b-adapt=0:ref=6"}, {}),
    "one-start.mp4": ("libx264", {"g": "999", "sc_threshold": "0"}, {}),
    "fields.mp4": ("libx264", {"x264-params": "tff=1:keyint=10", "flags": "+ildct+ilme"}, {}),
    "fragments.mp4": ("libx264", {"g": "7"}, {"container": {"movflags": "frag_keyframe+empty_moov"}}),
    "colours.mkv": ("libx264", {"g": "9"}, {"format": "yuv444p"}),
    "varying-rate.mp4": ("libx264", {"g": "9"}, {"varying": True}),
    "varying-rate.mkv": ("libx264", {"g": "9"}, {"varying": True}),
    "rotated.mp4": ("libx264", {"g": "9"}, {"rotation": 90}),
    "hevc.mkv": ("libx265", {"x265-params": "keyint=12:bframes=4:open-gop=0:log-level=none"}, {}),
    "hevc-open.mov": ("libx265", {"x265-params": "keyint=12:bframes=4:scenecut=0:log-level=none"}, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "10", "cpu-used": "8"}, {}),
    "vp9-hidden.mkv": ("libvpx-vp9", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}, {}),
    "av1.mp4": ("libsvtav1", {"preset": "12", "g": "15"}, {}),
}
# Clips of which some frames can be sought: those that do not come after pictures that build on an earlier part.
IN_PART: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "h264-open.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}, {}),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}, {}),
}
# Clips that seeking is not to be trusted with, for their codec or their container.
SEQUENTIAL: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "mpeg4.mp4": ("mpeg4", {"g": "10", "bf": "2"}, {}),
    "vp8-hidden.webm": ("libvpx", {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16"}, {}),
    "h264.avi": ("libx264", {"g": "10"}, {}),
    "h264.ts": ("libx264", {"g": "10"}, {}),
    "mpeg2.mpg": ("mpeg2video", {"g": "10", "bf": "2"}, {}),
}


def _write(path: Path, codec: str, options: dict[str, Any], particular: dict[str, Any], count: int = COUNT) -> Path:
    """Noise that moves, changes now and then and differs from frame to frame."""
    size, rng, shown = 64, np.random.default_rng(0), 0
    with av.open(str(path), "w", options=particular.get("container", {})) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width = stream.height = size
        stream.pix_fmt, stream.options = particular.get("format", "yuv420p"), options
        unit = Fraction(1, 1000) if particular.get("varying") else Fraction(1, 25)
        stream.codec_context.time_base = unit
        if "rotation" in particular:
            stream.set_display_rotation(particular["rotation"])
        for number in range(count):
            if number % 17 == 0:
                base = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
            pixels = np.roll(base, (number * 3, number * 2), (0, 1))
            pixels[(number * 5) % size] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = shown, unit
            shown += int(rng.integers(10, 90)) if particular.get("varying") else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _in_order(path: Path) -> list[np.ndarray]:
    with open_container(MediaFile(path), "video", Limits()) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size]
        frames = [frame for packet in packets for frame in packet.decode()] + stream.codec_context.decode(None)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def _by_seeking(path: Path, numbers: list[int]) -> dict[int, np.ndarray]:
    """Raises DoubtError, or MediaError where decoding fails."""
    with open_container(MediaFile(path), "video", Limits()) as (container, stream):
        index = index_packets(container, stream, Limits())
        sought = seek_frames(container, stream, index, numbers)
        return {number: frame.to_ndarray(format="rgb24") for number, frame in sought}


def _as_read(path: Path, wanted: int) -> list[np.ndarray]:
    def choose(total: int) -> list[list[int]]:
        return [middle_frames(total, wanted)]

    (kept,) = read_frames(MediaFile(path), choose, lambda _, frame: frame.copy(), Limits())
    return kept


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[np.ndarray]]]:
    """Each clip and all of its frames."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [_write(folder / name, *how) for name, how in (CLIPS | IN_PART | SEQUENTIAL).items()]
    return {path.name: (path, _in_order(path)) for path in paths}


@pytest.mark.parametrize("name", CLIPS)
@settings(max_examples=12, deadline=None)
@given(numbers=st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=10).map(sorted))
def test_the_same_pixels(clips: dict[str, tuple[Path, list[np.ndarray]]], name: str, numbers: list[int]) -> None:
    path, frames = clips[name]
    assert len(frames) == COUNT
    sought = _by_seeking(path, numbers)
    assert list(sought) == numbers
    for number, pixels in sought.items():
        np.testing.assert_array_equal(pixels, frames[number])


@pytest.mark.parametrize("name", CLIPS | IN_PART | SEQUENTIAL)
@pytest.mark.parametrize("wanted", [1, 8, 70])
def test_the_same_clip_either_way(clips: dict[str, tuple[Path, list[np.ndarray]]], name: str, wanted: int) -> None:
    path, frames = clips[name]
    for number, pixels in zip(middle_frames(len(frames), wanted), _as_read(path, wanted), strict=True):
        turned = np.rot90(frames[number]) if name == "rotated.mp4" else frames[number]
        np.testing.assert_array_equal(pixels, turned)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_doubtful_clips_are_not_sought_in(clips: dict[str, tuple[Path, list[np.ndarray]]], name: str) -> None:
    path, frames = clips[name]
    with pytest.raises(DoubtError):
        _by_seeking(path, [len(frames) - 1])


@pytest.mark.parametrize("name", IN_PART)
@given(number=st.integers(0, COUNT - 1))
def test_what_is_found_in_part(clips: dict[str, tuple[Path, list[np.ndarray]]], name: str, number: int) -> None:
    path, frames = clips[name]
    try:
        sought = _by_seeking(path, [number])
    except (DoubtError, MediaError):
        return
    np.testing.assert_array_equal(sought[number], frames[number])


@pytest.mark.parametrize("name", ["b-frames.mp4", "hevc.mkv", "vp9.webm", "av1.mp4"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_clips(tmp_path: Path, name: str, count: int) -> None:
    path = _write(tmp_path / name, *CLIPS[name], count=count)
    frames, sought = _in_order(path), _by_seeking(path, list(range(count)))
    for number in range(count):
        np.testing.assert_array_equal(sought[number], frames[number])


def test_little_is_decoded(clips: dict[str, tuple[Path, list[np.ndarray]]], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    decode_from = packets_module._decode_from

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal decoded
        for frame in decode_from(*arguments):
            decoded += 1
            yield frame

    monkeypatch.setattr(packets_module, "_decode_from", counted)
    path, _ = clips["two.mkv"]
    _by_seeking(path, [3, 20, 21, 50])
    assert decoded <= 7


@pytest.mark.parametrize("name", ["b-frames.mp4", "hevc-open.mov", "av1.mp4"])
def test_every_frame_called_a_key_frame(
    tmp_path: Path, clips: dict[str, tuple[Path, list[np.ndarray]]], name: str
) -> None:
    """MP4 without its table of key frames says that all of them are some."""
    path, frames = clips[name]
    content = path.read_bytes()
    assert content.count(b"stss") == 1
    (tmp_path / name).write_bytes(content.replace(b"stss", b"free"))
    for number, pixels in zip(middle_frames(COUNT, 8), _as_read(tmp_path / name, 8), strict=True):
        np.testing.assert_array_equal(pixels, frames[number])


@pytest.mark.parametrize("name", ["b-frames.mp4", "pyramid.mkv", "hevc.mkv", "vp9-hidden.mkv", "av1.mp4"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_of_a_damaged_clip_seeking_gives_the_same_frames_or_none(
    tmp_path_factory: pytest.TempPathFactory,
    clips: dict[str, tuple[Path, list[np.ndarray]]],
    name: str,
    data: st.DataObject,
) -> None:
    """The same damages each time: what is made of a frame whose references are damaged may depend on the way."""
    path, _ = clips[name]
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.floats(0.1, 0.85), min_size=1, max_size=5)):
        content[int(place * len(content))] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
    damaged = tmp_path_factory.mktemp("damaged") / name
    damaged.write_bytes(content)
    try:
        frames = _in_order(damaged)
        sought = _by_seeking(damaged, [5, 25, 45])
    except (DoubtError, MediaError):
        return
    if len(frames) == COUNT:  # of one that lost frames on the way, the numbers are others
        for number, pixels in sought.items():
            np.testing.assert_array_equal(pixels, frames[number])


def test_real_clips() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    for path in sorted(SHARED.iterdir()):
        frames = _in_order(path)
        for wanted in (1, 4, 8, 16, 60):
            numbers = middle_frames(len(frames), wanted)
            for number, pixels in zip(numbers, _as_read(path, wanted), strict=True):
                np.testing.assert_array_equal(pixels, frames[number], str(path))
        assert len(_by_seeking(path, middle_frames(len(frames), 8))) == 8
