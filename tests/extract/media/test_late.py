"""Clips whose timestamps begin late, as they do in parts cut from a longer one: as long as their frames last."""

from pathlib import Path

import av
import numpy as np
import pytest

from epalm.errors import MediaError
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import read_frames
from epalm.media import MediaFile
from tests.clips import numbered_frames, read_clip, write_clip
from tests.shared_files import shared_case

COUNT = 40
SECONDS = 4
CODECS = {
    "mp4": "libx264",
    "mov": "libx264",
    "mkv": "libx264",
    "webm": "libvpx-vp9",
    "ts": "libx264",
    "flv": "libx264",
    "nut": "libx264",
    "ogg": "libvpx",
    "mpg": "mpeg2video",
    "wmv": "wmv2",
}


def _write(path: Path, start: str) -> Path:
    codec = CODECS[path.suffix[1:]]
    rate = 25 if codec == "mpeg2video" else 10  # MPEG-2 knows few rates
    frames = numbered_frames(rate * SECONDS // 2) * 2
    return write_clip(path, frames, codec=codec, rate=rate, pix_fmt="yuv420p", container={"output_ts_offset": start})


def _within(path: Path, seconds: float) -> bool:
    try:
        read_frames(MediaFile(path), lambda _: [[0]], lambda _, frame: frame, Limits(max_seconds=seconds))
    except MediaError as error:
        assert "--max-seconds" in (error.hint or "")
        return False
    return True


@pytest.mark.parametrize("extension", CODECS)
def test_the_start_changes_neither_frames_nor_length(tmp_path: Path, extension: str) -> None:
    expected = read_clip(_write(tmp_path / f"0.{extension}", "0"))
    for start in ("3.7", "25000", "95440"):  # the last: MPEG's clock begins anew after 95,443 s
        path = _write(tmp_path / f"{start}.{extension}", start)
        frames = read_clip(path)
        assert len(frames) == len(expected)
        for mine, theirs in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert _within(path, SECONDS + 0.5)
        assert not _within(path, SECONDS - 0.5)


def test_a_wrong_length_in_the_header_changes_nothing(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mkv", "0")
    expected, content = read_clip(path), path.read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # Matroska's duration: a float of 8 bytes, in ms
    path.write_bytes(content[:place] + np.array(1e12, ">f8").tobytes() + content[place + 8 :])
    np.testing.assert_array_equal(read_clip(path), expected)
    assert _within(path, SECONDS + 0.5)
    assert not _within(path, SECONDS - 0.5)


def test_given_clip() -> None:
    path = shared_case("matroska-late-start") / "seg1.mkv"
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = read_clip(path)
    assert len(frames) == len(expected)
    for mine, theirs in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert _within(path, 1.4)
