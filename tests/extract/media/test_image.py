"""Pictures come out as a viewer shows them, whatever their mode; damaged ones are errors, never pixels."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from epalm.errors import MediaError
from epalm.extract.inputs.preprocess import ImageInput, Pixels
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _read(path: Path, limits: Limits | None = None) -> np.ndarray:
    return read_image(MediaFile(path), limits or Limits()).pixels


def _two_colours(width: int = 40, height: int = 20) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize(
    ("orientation", "shape", "top_left"),
    [(1, (20, 40), RED), (2, (20, 40), BLUE), (3, (20, 40), BLUE), (6, (40, 20), RED), (8, (40, 20), BLUE)],
)
def test_exif_orientation(tmp_path: Path, orientation: int, shape: tuple[int, int], top_left: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _two_colours().save(tmp_path / "a.png", exif=exif)
    pixels = _read(tmp_path / "a.png")
    assert pixels.shape == (*shape, 3)
    assert tuple(pixels[0, 0]) == top_left


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(_read(tmp_path / "a.jpg").astype(int) - RED).max() < 8


def test_palette_with_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*GREEN, *BLUE])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "a.png", transparency=0)
    pixels = _read(tmp_path / "a.png")
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[1, 1]) == BLUE


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_lies_on_white(tmp_path: Path, alpha: int) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, alpha)).save(tmp_path / "a.png")
    assert np.abs(_read(tmp_path / "a.png").astype(int) - (255 - alpha)).max() <= 1


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.new("LA", (4, 4), (10, 255)).save(tmp_path / "a.png")
    assert (_read(tmp_path / "a.png") == 10).all()


def test_16_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    values = np.array([[0, 255, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert _read(tmp_path / name)[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_one_bit(tmp_path: Path) -> None:
    Image.new("1", (9, 4), 1).save(tmp_path / "a.png")
    assert (_read(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED, BLUE)]
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50, **options)
    assert tuple(_read(tmp_path / name)[3, 3]) == GREEN


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match="floating-point"):
        _read(tmp_path / "a.tif")


@given(share=st.floats(0.01, 0.97))
def test_a_truncated_jpeg_is_an_error(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(MediaError) as error:
        _read(path)
    assert str(path) not in error.value.message  # the same fault has the same words wherever the file lies
    assert error.value.hint


@given(
    noise=st.binary(max_size=300),
    start=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM"]),
)
def test_random_bytes_are_an_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.png"
    path.write_bytes(start + noise)
    with pytest.raises(MediaError):
        _read(path)


def test_size_is_checked_before_decoding(tmp_path: Path) -> None:
    _two_colours().save(tmp_path / "a.bmp")
    assert _read(tmp_path / "a.bmp", Limits(max_pixels=800)).shape == (20, 40, 3)
    with pytest.raises(MediaError, match=r"40×20 pixels.*more than 799") as refusal:
        _read(tmp_path / "a.bmp", Limits(max_pixels=799))
    assert "--max-pixels" in str(refusal.value.hint)
    header = bytearray((tmp_path / "a.bmp").read_bytes())
    header[18:26] = struct.pack("<ii", 60_000, 60_000)  # claims 3.6 gigapixels
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(MediaError, match=r"3600000000.*100000000") as refusal:
        _read(tmp_path / "bomb.bmp")
    assert "--max-pixels" in str(refusal.value.hint)


def test_size_in_bytes(tmp_path: Path) -> None:
    _two_colours().save(tmp_path / "a.bmp")
    size = (tmp_path / "a.bmp").stat().st_size
    _read(tmp_path / "a.bmp", Limits(max_bytes=size))
    with pytest.raises(MediaError, match=rf"{size:,} bytes: more than {size - 1:,}") as refusal:
        _read(tmp_path / "a.bmp", Limits(max_bytes=size - 1))
    assert "--max-bytes" in str(refusal.value.hint)


def test_a_picture_within_a_picture_is_checked_too(tmp_path: Path) -> None:
    """An icon says 16×16, and holds a PNG of more."""
    inner = io.BytesIO()
    Image.new("1", (400, 300)).save(inner, "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, inner.tell(), 22)
    (tmp_path / "a.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inner.getvalue())
    with pytest.raises(MediaError, match=r"120,?000"):
        _read(tmp_path / "a.ico", Limits(max_pixels=119_999))


def test_postscript_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(MediaError, match="no known image format"):
        _read(tmp_path / "a.jpg")


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for name, reason in (("none.png", "does not exist"), ("empty.png", "empty"), (".", "regular file")):
        with pytest.raises(MediaError, match=reason):
            _read(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_every_orientation_is_as_pillow_turns_it(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(noise).save(tmp_path / name, exif=exif, **options)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(_read(tmp_path / name), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_strips_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (33, 17, 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert("RGB" if mode in ("CMYK", "P") else "RGBA")
    image = Image.fromarray(noise.astype(np.uint16)[..., 0] * 257) if mode == "I;16" else image.convert(mode)
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    image.save(tmp_path / "a.tif", **options)
    whole = _read(tmp_path / "a.tif")
    monkeypatch.setattr("epalm.extract.media.image._STRIP", 17 * 4)
    np.testing.assert_array_equal(_read(tmp_path / "a.tif"), whole)


def test_the_input_resizes_straight_and_normalises(tmp_path: Path) -> None:
    _two_colours().save(tmp_path / "a.png")
    read = ImageInput(Pixels((8, 6), "nearest", (0.5, 0.25, 0.0), (0.5, 0.5, 2.0)))
    raw = read(MediaFile(tmp_path / "a.png"))
    assert raw.shape == (1, 8, 6, 3)
    assert raw.dtype == np.uint8
    array = read.normalise(torch.from_numpy(raw)).numpy()
    assert array.shape == (1, 3, 8, 6)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[0, :, 0, 0], [1.0, -0.5, 0.0])
    np.testing.assert_allclose(array[0, :, 7, 5], [-1.0, -0.5, 0.5])
