"""Colours of clips: the matrix and the range that the stream names, as the formulas have it and as FFmpeg shows it."""

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from tests.clips import read_clip, shown_by_ffmpeg
from tests.shared_files import program

_BT709, _UNSET, _SMPTE170M = 1, 2, 6  # as H.264 numbers matrices
_LIMITED, _FULL = 1, 2  # as FFmpeg numbers ranges
# Shares of red and blue in brightness; a stream that names no matrix is taken to be of BT.601.
MATRICES = {
    "unset": (_UNSET, 0.299, 0.114),
    "BT.601": (_SMPTE170M, 0.299, 0.114),
    "BT.709": (_BT709, 0.2126, 0.0722),
}
PATCHES = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (200, 60, 30),
    (20, 90, 180),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
]
SIZE = 16  # pixels of a patch
COLOURS = np.concatenate([np.full((SIZE, SIZE, 3), colour, np.uint8) for colour in PATCHES], axis=1)
TOLERANCE = 3  # of 255: both ways are rounded to 8 bits


def _as_stored(rgb: np.ndarray, red: float, blue: float, *, full: bool) -> np.ndarray:
    """(3, H, W) uint8: the published formula, ITU-R BT.601 and BT.709."""
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))]
    planes = [255 * y, *(128 + 255 * c for c in chroma)] if full else [16 + 219 * y, *(128 + 224 * c for c in chroma)]
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_colours_come_out_as_they_went_in(tmp_path: Path, name: str, matrix: str, full: bool) -> None:
    space, red, blue = MATRICES[matrix]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, _ = COLOURS.shape
        stream.pix_fmt, stream.options = "yuv444p", {"qp": "0"}
        stream.codec_context.colorspace = space
        stream.codec_context.color_range = _FULL if full else _LIMITED
        planes = _as_stored(COLOURS, red, blue, full=full)
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
            frame.colorspace, frame.color_range = stream.codec_context.colorspace, stream.codec_context.color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = read_clip(tmp_path / name)[-1].astype(int)
    assert np.abs(shown - COLOURS).max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("tv.mp4", "-c:v libx264 -pix_fmt yuv420p -colorspace bt709 -color_range tv"),
        ("pc.mp4", "-c:v libx264 -pix_fmt yuv420p -colorspace bt709 -color_range pc"),
        ("sd.webm", "-c:v libvpx-vp9 -pix_fmt yuv420p -colorspace smpte170m"),
        ("ten.mov", "-c:v libx264 -pix_fmt yuv420p10le -colorspace bt709"),
        ("ultra.mkv", "-c:v libx264 -pix_fmt yuv420p10le -colorspace bt2020nc -color_trc smpte2084"),
        ("full.avi", "-c:v mjpeg -pix_fmt yuvj422p"),
        ("old.avi", "-c:v mpeg4 -pix_fmt yuv420p"),
        ("rgb.mkv", "-c:v libx264rgb"),
    ],
)
def test_as_ffmpeg_shows_it(tmp_path: Path, name: str, coding: str) -> None:
    path = tmp_path / name
    source = ["-f", "lavfi", "-i", "smptebars=size=128x96:rate=10:duration=0.3"]
    subprocess.run([program("ffmpeg"), "-v", "error", *source, *coding.split(), str(path)], check=True)
    difference = read_clip(path)[-1].astype(int) - shown_by_ffmpeg(path)[-1]
    # Between two colours, versions of FFmpeg scale the chroma of 10 bits up in other ways.
    assert np.median(np.abs(difference)) <= 1
    assert np.abs(difference.mean(axis=(0, 1))).max() <= 1
