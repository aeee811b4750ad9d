"""The right frames, turned as players show them, only those in memory; what is no video is an error."""

import gc
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.inputs.preprocess import Pixels, VideoInput
from epalm.extract.media import video as video_module
from epalm.extract.media.limits import Limits
from epalm.extract.media.packets import PacketIndex, index_packets
from epalm.extract.media.video import middle_frames, random_frames, read_frames
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared" / "media" / "video"
Kept = TypeVar("Kept")


def _write(path: Path, count: int, *, codec: str = "libx264", size: int = 32) -> None:
    """A clip whose frame number n is grey of value 20 + 5·n, brighter by 40 in its top left quarter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "1"}
        for number in range(count):
            pixels = np.full((size, size, 3), 20 + 5 * number, np.uint8)
            pixels[: size // 2, : size // 2] += 40
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _numbers(path: Path, wanted: int) -> list[int]:
    """Which frames were read, told by their grey."""
    return _frames(path, wanted, lambda frame: round((int(frame[-4, -4, 0]) - 20) / 5))


def _frames(path: Path, wanted: int, keep: Callable[[np.ndarray], Kept], limits: Limits | None = None) -> list[Kept]:
    """The middle frames, as view 0 has them."""
    (kept,) = read_frames(
        MediaFile(path), lambda total: [middle_frames(total, wanted)], lambda _, frame: keep(frame), limits or Limits()
    )
    return kept


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


@given(total=st.integers(1, 500), wanted=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_random_one_of_each_interval(total: int, wanted: int, seed: int) -> None:
    numbers = random_frames(total, wanted, np.random.default_rng(seed))
    assert numbers == random_frames(total, wanted, np.random.default_rng(seed))
    if total < wanted:
        assert numbers == middle_frames(total, wanted)
    else:
        for interval, number in enumerate(numbers):
            assert interval * total // wanted <= number < (interval + 1) * total // wanted


def test_every_frame_of_an_interval_is_as_likely() -> None:
    drawn = [random_frames(20, 2, np.random.default_rng(seed)) for seed in range(4000)]
    for interval in range(2):
        counts = np.bincount([numbers[interval] for numbers in drawn], minlength=20)[10 * interval : 10 * interval + 10]
        assert counts.sum() == 4000
        assert counts.min() > 300
        assert counts.max() < 500


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
def test_packets_that_are_not_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: int) -> None:
    _write(tmp_path / "a.mkv", 12)

    def miscounted(*arguments: Any) -> PacketIndex:
        return replace(index_packets(*arguments), times=np.arange(claimed), doubtful=True)

    monkeypatch.setattr(video_module, "index_packets", miscounted)
    assert _numbers(tmp_path / "a.mkv", 4) == [1, 4, 7, 10]


def test_only_wanted_frames_are_converted(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 40)
    seen: list[int] = []
    _frames(tmp_path / "a.mp4", 4, lambda frame: seen.append(int(frame[-1, -1, 0])))
    assert len(seen) == 4


def test_frames_leave_no_threads_behind(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 24)
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("threads are counted where Linux lists them")
    gc.disable()  # whoever decodes clip after clip runs into its limits before the collector comes
    try:
        _numbers(tmp_path / "a.mp4", 24)
        before = len(list(tasks.iterdir()))
        for _ in range(3):
            _numbers(tmp_path / "a.mp4", 24)
        assert len(list(tasks.iterdir())) <= before
    finally:
        gc.enable()


def test_the_input_has_one_shape(tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", 5)
    read = VideoInput(Pixels((16, 24), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 8)
    raw = read(MediaFile(tmp_path / "a.mp4"))
    assert raw.shape == (1, 8, 16, 24, 3)
    assert raw.dtype == np.uint8
    assert read.normalise(torch.from_numpy(raw)).shape == (1, 8, 3, 16, 24)


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
        _frames(tmp_path / "a.mp4", 2, np.copy)


def test_sound_alone_and_cover_pictures_are_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="no video stream"):
        _frames(tmp_path / "a.mp4", 2, np.copy)


@pytest.mark.parametrize(
    ("limits", "option", "figures"),
    [
        (Limits(max_pixels=3 * 32 * 32 - 1), "--max-pixels", "32×32.*1,023"),
        (Limits(max_frames=11), "--max-frames", "12 frames or more.*11"),
        (Limits(max_seconds=1.0), "--max-seconds", "1 s or more.*1 s"),
        (Limits(max_bytes=500), "--max-bytes", "bytes.*500"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_limits(tmp_path: Path, name: str, limits: Limits, option: str, figures: str) -> None:
    _write(tmp_path / name, 12)
    with pytest.raises(MediaError, match=figures) as refusal:
        _frames(tmp_path / name, 4, np.copy, limits)
    assert option in str(refusal.value.hint)


def test_real_videos() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    read = VideoInput(Pixels((32, 32), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 8)
    for path in sorted(SHARED.iterdir()):
        array = read(MediaFile(path))[0].astype(int)
        assert array.shape == (8, 32, 32, 3)
        assert np.abs(array[0] - array[-1]).mean() > 1, f"{path.name}: first and last frame are the same"
