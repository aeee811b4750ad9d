"""A file that is another medium than was asked for: the message says what it is, whatever its name."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile
from tests.clips import numbered_frames, read_clip, write_clip
from tests.shared_files import shared_case

PICTURES = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "BMP": "BMP", "TIFF": "TIFF"}
SOUNDS = {"WAV": "WAV", "FLAC": "FLAC", "OGG": "Ogg", "MP3": "MP3"}
CLIPS = {"mp4": "MP4", "mov": "QuickTime", "mkv": "Matroska", "avi": "AVI", "flv": "Flash", "ts": "MPEG"}
OTHERS = {
    "text": b"just some text\n" * 50,
    "a web page": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "zeros": bytes(5000),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "a PDF document": b"%PDF-1.7\n" + bytes(range(256)),
    "an archive": b"PK\x03\x04" + bytes(range(256)),
}


def _picture(path: Path) -> None:
    read_image(MediaFile(path), Limits())


def _clip(path: Path) -> None:
    read_clip(path, [0])


def _sound(path: Path) -> None:
    read_waveform(MediaFile(path), Limits(), rate=16_000, keep=100)


def _refusal(read: Callable[[Path], None], path: Path, content: bytes) -> MediaError:
    path.write_bytes(content)
    with pytest.raises(MediaError) as refused:
        read(path)
    return refused.value


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize(("read", "name"), [(_clip, "a.mp4"), (_sound, "a.wav")])
def test_pictures(tmp_path: Path, read: Callable[[Path], None], name: str, kind: str) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 90).convert("RGB").save(file, kind)
    refused = _refusal(read, tmp_path / name, file.getvalue())
    assert f"it is a {PICTURES[kind]} picture" in refused.message
    assert "--modality image" in (refused.hint or "")


@pytest.mark.parametrize("read", [_picture, _clip])
@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_jpeg_2000_is_not_read(tmp_path: Path, read: Callable[[Path], None], options: dict[str, bool]) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 90).convert("RGB").save(file, "JPEG2000", **options)
    refused = _refusal(read, tmp_path / "a.jp2", file.getvalue())
    assert "it is a JPEG 2000 picture" in refused.message and "convert" in (refused.hint or "")


@pytest.mark.parametrize("kind", SOUNDS)
def test_sounds(tmp_path: Path, kind: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 8000), 16_000, format=kind)
    refused = _refusal(_picture, tmp_path / "a.png", file.getvalue())
    assert SOUNDS[kind] in refused.message and "--modality audio" in (refused.hint or "")


@pytest.mark.parametrize("kind", CLIPS)
def test_clips(tmp_path: Path, kind: str) -> None:
    path = write_clip(tmp_path / f"a.{kind}", numbered_frames(3), pix_fmt="yuv420p")
    refused = _refusal(_picture, tmp_path / "a.jpg", path.read_bytes())
    assert CLIPS[kind] in refused.message and "--modality video" in (refused.hint or "")


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("read", [_picture, _clip, _sound])
def test_what_is_no_medium(tmp_path: Path, read: Callable[[Path], None], kind: str) -> None:
    refused = _refusal(read, tmp_path / "a.bin", OTHERS[kind])
    assert f"{kind}" in refused.message and refused.hint


def test_given_files() -> None:
    folder = shared_case("not-a-video")
    for name, kind in (("png_as.mp4", "PNG"), ("cover.jpg", "JPEG")):
        with pytest.raises(MediaError, match=f"no known video format: it is a {kind} picture"):
            read_clip(folder / name)
