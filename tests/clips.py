"""Small clips made for tests, and what FFmpeg's command shows of one."""

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream

from epalm.extract.media.limits import Limits
from epalm.extract.media.video import read_frames
from epalm.media import MediaFile
from tests.shared_files import program

RATE = 10  # frames a second
LOSSLESS = {"libx264": {"qp": "0", "g": "5"}, "libvpx-vp9": {"lossless": "1", "g": "5"}}


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    rate: int = RATE,
    matrix: Sequence[int] | None = None,
    times: Sequence[int] | None = None,
    pix_fmt: str = "yuv444p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    **context: Any,
) -> Path:
    """A clip of frames (H, W, 3) uint8, lossless but for colours; `times` in milliseconds [default: by the rate]."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = pix_fmt
        stream.options = {**LOSSLESS.get(codec, {}), **(options or {})}
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else 1000 // rate * number, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def numbered_frames(count: int, size: int = 32) -> list[np.ndarray]:
    """Frames that `frame_number` tells apart: number n is grey of value 16 + 4·n."""
    return [np.full((size, size, 3), 16 + 4 * number, np.uint8) for number in range(count)]


def frame_number(pixels: np.ndarray) -> int:
    """Which of `numbered_frames` it is."""
    return round((float(pixels.mean()) - 16) / 4)


def read_clip(path: Path, numbers: Sequence[int] | None = None) -> list[np.ndarray]:
    """The frames with those numbers [default: all] as an extraction reads them."""
    (kept,) = read_frames(
        MediaFile(path),
        lambda total: [list(range(total) if numbers is None else numbers)],
        lambda _, frame: np.ascontiguousarray(frame),
        Limits(),
    )
    return kept


def shown_by_ffmpeg(path: Path, *options: str) -> list[np.ndarray]:
    """All frames (H, W, 3) uint8 as FFmpeg's command writes them."""
    words = [
        "-v",
        "error",
        "-i",
        str(path),
        *options,
        "-f",
        "image2pipe",
        "-c:v",
        "ppm",
        "-pix_fmt",
        "rgb24",
        "-fps_mode",
        "passthrough",
        "-",
    ]
    ppm = subprocess.run([program("ffmpeg"), *words], capture_output=True, check=True).stdout
    frames = []
    while ppm:
        _, size, _, rest = ppm.split(b"\n", 3)
        width, height = (int(length) for length in size.split())
        count = 3 * width * height
        frames.append(np.frombuffer(rest[:count], np.uint8).reshape(height, width, 3))
        ppm = rest[count:]
    return frames
