"""A container that is shorter than it says is an error: a download that broke off is no short clip."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.media.chunks import require_whole
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames, read_frames
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared" / "media" / "video"
CONTAINERS = ("a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi")


def _write(path: Path, *, codec: str | None = None, **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec or ("libvpx-vp9" if path.suffix == ".webm" else "libx264"), rate=10)
        assert isinstance(stream, VideoStream)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "5"}
        noise = np.random.default_rng(0)
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frames(path: Path) -> list[int]:
    kept = read_frames(MediaFile(path), lambda total: [middle_frames(total, 4)], lambda _, __: 1, Limits())
    return kept[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    for name in CONTAINERS:
        _write(folder / name)
    _write(folder / "faststart.mp4", movflags="faststart")
    _write(folder / "fragmented.mp4", movflags="frag_keyframe+empty_moov")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*CONTAINERS, "faststart.mp4", "fragmented.mp4"])
def test_whole_files_and_what_hangs_on_them(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    content = whole[name].read_bytes()
    for tail in (b"", b"\0", b"\0" * 100, b"junk that somebody appended"):
        (tmp_path / name).write_bytes(content + tail)
        assert len(_frames(tmp_path / name)) == 4


@pytest.mark.parametrize("name", [*CONTAINERS, "faststart.mp4"])
@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.0, 0.9))
def test_any_part_of_one_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Path], name: str, share: float
) -> None:
    content = whole[name].read_bytes()
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MediaError) as error:
        _frames(path)
    assert error.value.hint


@pytest.mark.parametrize("name", [*CONTAINERS, "faststart.mp4"])
def test_the_reason_is_named(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    content = whole[name].read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut off: it announces [0-9,]+ bytes and has [0-9,]+"):
        _frames(tmp_path / name)


def test_a_clip_of_thousands_of_fragments_is_looked_through_to_its_end() -> None:
    fragment = struct.pack(">I4s", 8, b"moof") + struct.pack(">I4s", 28, b"mdat") + bytes(20)
    content = struct.pack(">I4s", 8, b"ftyp") + 2_000 * fragment
    assert require_whole(io.BytesIO(content), "video").read() == content
    with pytest.raises(MediaError, match="cut off"):
        require_whole(io.BytesIO(content[:-1]), "video")


def test_a_broadcast_announces_nothing(tmp_path: Path) -> None:
    """Matroska that was never finished does not know its length, and is taken as it is."""
    _write(tmp_path / "a.mkv", live="1")
    content = (tmp_path / "a.mkv").read_bytes()
    assert len(_frames(tmp_path / "a.mkv")) == 4
    (tmp_path / "part.mkv").write_bytes(content[: len(content) * 2 // 3])
    assert len(_frames(tmp_path / "part.mkv")) == 4


STARTS = (
    b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x01\x10", b"RIFF\1\1\1\1AVI ", b"\0\0\0\x10ftyp", b"\0\0\0\1mdat\xff",
    b"RIFF\1\1\1\1WAVE", b"RF64\1\1\1\1WAVEds64", b"FORM\1\1\1\1AIFF", b"caff\0\1\0\0desc\xff", b".snd", b"OggS\0",
    bytes.fromhex("726966662e91cf11a5d628db04c10000"),
)  # fmt: skip


@given(content=st.binary(max_size=200), start=st.sampled_from(STARTS))
def test_any_bytes_at_all(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a"
    path.write_bytes(start + content)
    with path.open("rb") as file:
        try:
            require_whole(file, "video")
        except MediaError as error:
            assert "cut off" in error.message


def test_real_files() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    for path in SHARED.iterdir():
        with path.open("rb") as file:
            require_whole(file, "video")
