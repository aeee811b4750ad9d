"""The right frames, turned as players show them, only those in memory; what is no video is an error."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract import video as video_module
from epalm.extract.preprocess import Pixels, VideoInput
from epalm.extract.video import middle_frames, read_frames

SHARED = Path(__file__).parents[1].parent / "shared" / "media" / "video"


def _write(path: Path, count: int, *, rotation: int = 0, codec: str = "libx264", size: int = 32) -> None:
    """A clip whose frame number n is grey of value 20 + 5·n, brighter by 40 in its top left quarter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "1"}
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(count):
            pixels = np.full((size, size, 3), 20 + 5 * number, np.uint8)
            pixels[: size // 2, : size // 2] += 40
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _numbers(path: Path, wanted: int) -> list[int]:
    """Which frames were read, told by their grey."""
    return read_frames(path, wanted, lambda frame: round((int(frame[-4, -4, 0]) - 20) / 5))


@given(total=st.integers(1, 500), wanted=st.integers(1, 40))
def test_middle_of_each_interval(total: int, wanted: int) -> None:
    numbers = middle_frames(total, wanted)
    assert len(numbers) == wanted
    assert numbers == sorted(numbers)
    if total >= wanted:
        for interval, number in enumerate(numbers):
            low, high = Fraction(interval * total, wanted), Fraction((interval + 1) * total, wanted)
            assert abs(number + Fraction(1, 2) - (low + high) / 2) <= Fraction(1, 2)
            assert 0 <= number < total
    else:
        assert numbers == [*range(total), *[total - 1] * (wanted - total)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov"])
def test_frames_of_containers(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, 24)
    assert _numbers(tmp_path / name, 8) == [1, 4, 7, 10, 13, 16, 19, 22]


def test_fewer_frames_than_wanted_repeat_the_last(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 3)
    assert _numbers(tmp_path / "a.mp4", 5) == [0, 1, 2, 2, 2]
    _write(tmp_path / "one.mp4", 1)
    assert _numbers(tmp_path / "one.mp4", 4) == [0, 0, 0, 0]


@pytest.mark.parametrize("claimed", [4, 11, 13, 40, 1])
def test_a_container_that_miscounts_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: int) -> None:
    _write(tmp_path / "a.mkv", 12)
    monkeypatch.setattr(video_module, "_count", lambda _path: claimed)
    assert _numbers(tmp_path / "a.mkv", 4) == [1, 4, 7, 10]


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_rotation(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    """The bright corner, top left as stored, turns counterclockwise by the display matrix's angle."""
    _write(tmp_path / "a.mp4", 4, rotation=degrees)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert next(container.decode(video=0)).rotation in {degrees, -degrees if degrees == 180 else degrees}
    (frame,) = read_frames(tmp_path / "a.mp4", 1, np.copy)
    corners = {(row, column): int(frame[row, column, 0]) for row in (0, -1) for column in (0, -1)}
    assert max(corners, key=lambda place: corners[place]) == corner


def test_only_wanted_frames_are_converted(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 40)
    seen: list[int] = []
    read_frames(tmp_path / "a.mp4", 4, lambda frame: seen.append(int(frame[-1, -1, 0])))
    assert len(seen) == 4


def test_the_input_has_one_shape(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 5)
    read = VideoInput(Pixels((16, 24), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 8)
    assert read(tmp_path / "a.mp4").shape == (8, 3, 16, 24)


@pytest.mark.parametrize(
    "text",
    [
        "just some text\n" * 50,
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n",
    ],
    ids=["text", "playlist", "concat", "session"],
)
def test_text_renamed_to_mp4(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "secret.mp4", 4)
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_frames(tmp_path / "a.mp4", 2, np.copy)


def test_sound_alone_and_cover_pictures_are_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="no video stream"):
        read_frames(tmp_path / "a.mp4", 2, np.copy)


def test_a_truncated_mp4(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 24, size=64)
    whole = (tmp_path / "a.mp4").read_bytes()
    for share in (0.05, 0.5, 0.9):
        (tmp_path / "b.mp4").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(MediaError):
            read_frames(tmp_path / "b.mp4", 4, np.copy)


def test_real_videos() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    read = VideoInput(Pixels((32, 32), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 8)
    for path in sorted(SHARED.iterdir()):
        array = read(path)
        assert array.shape == (8, 3, 32, 32)
        assert np.abs(array[0] - array[-1]).mean() > 0.01, f"{path.name}: first and last frame are the same"
