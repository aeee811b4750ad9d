"""Clips turned and mirrored as players show them: the eight orientations, and what to make of other matrices."""

import io
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from epalm.extract.media.image import ORIENTATIONS, of_display_matrix, read_image, turned
from epalm.extract.media.limits import Limits, collected_warnings
from epalm.media import MediaFile
from tests.clips import read_clip, shown_by_ffmpeg, write_clip
from tests.shared_files import shared_case

# By EXIF number: where a step to the right and a step down lead.
EIGHT = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
# What players show as stored: those that turn by no angle at all.
DEGENERATE = {"zero": (0, 0, 0, 0), "one row": (1, 0, 0, 0), "one column": (0, 1, 0, 0)}
# FFmpeg's command tilts these, and fills the corners with black; others show them as stored.
BETWEEN = {"shear": (1, 0.5, 0, 1), "singular": (1, 1, 1, 1), "37°": (0.799, 0.602, -0.602, 0.799)}
PICTURE = np.zeros((24, 32, 3), np.uint8)
PICTURE[:12, :16], PICTURE[12:, :16], PICTURE[:12, 16:] = (255, 160, 160), 128, 64


def _matrix(steps: tuple[float, ...], shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """As FFmpeg has them: 16.16 bits, the last column 2.30."""
    a, b, c, d = (round(65536 * step) for step in steps)
    return np.array([a, b, 0, c, d, 0, *shift, 1 << 30], np.int32)


def _clip(path: Path, matrix: np.ndarray) -> Path:
    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    return write_clip(path, [PICTURE] * 2, codec=codec, matrix=matrix.tolist())


@given(orientation=st.sampled_from(list(EIGHT)), height=st.integers(1, 4), width=st.integers(1, 4))
def test_turns_put_each_pixel_where_the_matrix_does(orientation: int, height: int, width: int) -> None:
    pixels = np.arange(height * width * 3).reshape(height, width, 3)
    a, b, c, d = EIGHT[orientation]
    down, right = np.indices((height, width))
    to_right, to_down = a * right + c * down, b * right + d * down
    to_right, to_down = to_right - to_right.min(), to_down - to_down.min()
    shown = np.empty((to_down.max() + 1, to_right.max() + 1, 3), int)
    shown[to_down, to_right] = pixels
    np.testing.assert_array_equal(turned(pixels, ORIENTATIONS[orientation]), shown)


@pytest.mark.parametrize("orientation", EIGHT)
def test_the_margins_of_a_reduced_picture_turn_with_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((601, 803, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    picture = read_image(MediaFile(tmp_path / "a.jpg"), Limits(), least=(75, 75))
    below, beside = 76 - 601 / 8, 101 - 803 / 8
    a, b, c, d = EIGHT[orientation]  # where the stored right side and the lower one come to lie
    sides = {(1, 0): 2, (-1, 0): 0, (0, 1): 3, (0, -1): 1}
    expected = [0.0] * 4
    expected[sides[a, b]], expected[sides[c, d]] = beside, below
    assert picture.margins == pytest.approx(expected)


@given(
    orientation=st.sampled_from(list(EIGHT)),
    scales=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    degrees=st.floats(-0.4, 0.4),
    shift=st.tuples(st.integers(-(2**30), 2**30), st.integers(-(2**30), 2**30)),
)
def test_scale_shift_and_rounding_do_not_matter(
    orientation: int, scales: tuple[float, float], degrees: float, shift: tuple[int, int]
) -> None:
    right, down = np.array(EIGHT[orientation], float).reshape(2, 2)
    angle = math.radians(degrees)
    tilt = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    steps = np.concatenate([scales[0] * right @ tilt, scales[1] * down @ tilt])
    assert of_display_matrix(_matrix(tuple(steps.tolist()), shift)) == ORIENTATIONS[orientation]


@given(orientation=st.sampled_from(list(EIGHT)), degrees=st.floats(1, 89))
def test_angles_between_are_no_orientation(orientation: int, degrees: float) -> None:
    angle = math.radians(degrees)
    tilt = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    steps = np.array(EIGHT[orientation]).reshape(2, 2) @ tilt
    assert of_display_matrix(_matrix(tuple(steps.ravel().tolist()))) is None


@pytest.mark.parametrize("orientation", EIGHT)
@pytest.mark.parametrize(
    "extension", ["mp4", "mkv", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mov", "webm"))]
)
def test_as_ffmpeg_shows_it(tmp_path: Path, extension: str, orientation: int) -> None:
    path = _clip(tmp_path / f"a.{extension}", _matrix(EIGHT[orientation]))
    with collected_warnings() as warnings:
        ours, theirs = read_clip(path)[-1].astype(int), shown_by_ffmpeg(path)[-1].astype(int)
    assert not warnings
    expected = turned(PICTURE, ORIENTATIONS[orientation])
    assert ours.shape == theirs.shape == expected.shape
    assert np.abs(ours - theirs).max() <= 2
    assert np.abs(ours - expected).max() <= 4


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_matrices_are_as_stored_for_ffmpeg_too(tmp_path: Path, name: str) -> None:
    path = _clip(tmp_path / "a.mov", _matrix(DEGENERATE[name]))
    ours, theirs = read_clip(path)[-1].astype(int), shown_by_ffmpeg(path)[-1].astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2 and np.abs(ours - PICTURE).max() <= 4


@pytest.mark.parametrize("name", BETWEEN)
def test_other_matrices_are_as_stored_with_a_warning(tmp_path: Path, name: str) -> None:
    path = _clip(tmp_path / "a.mp4", _matrix(BETWEEN[name]))
    with collected_warnings() as warnings:
        frames = read_clip(path)
    assert np.abs(frames[-1].astype(int) - PICTURE).max() <= 4
    (warning,) = warnings  # once for all frames
    assert "display matrix" in warning.message and warning.hint


@pytest.mark.parametrize("orientation", EIGHT)
def test_pictures_and_clips_of_pictures_are_turned_alike(tmp_path: Path, orientation: int) -> None:
    """Motion JPEG, of which each frame has an EXIF orientation: a kind of side data that PyAV has no name for."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(file, "JPEG", quality=100, subsampling=0, exif=exif)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=Fraction(10))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = *PICTURE.shape[:2], "yuvj444p"
        for number in range(2):
            packet = av.Packet(file.getvalue())
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            packet.time_base = Fraction(1, 10)
            container.mux(packet)
    expected = turned(PICTURE, ORIENTATIONS[orientation])
    shown = read_clip(tmp_path / "a.avi")[-1].astype(int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= 8


def test_given_clips() -> None:
    folder = shared_case("display-matrix")
    for name, orientation in (("hflip.mp4", 2), ("zero.mp4", 1)):
        with av.open(str(folder / name)) as container:
            stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
        expected = turned(stored, ORIENTATIONS[orientation])
        np.testing.assert_array_equal(read_clip(folder / name, [0])[0], expected)
