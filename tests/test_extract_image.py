"""Pictures come out as a viewer shows them, whatever their mode; damaged ones are errors, never pixels."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from epalm.errors import MediaError
from epalm.extract import image as image_module
from epalm.extract.image import read_image
from epalm.extract.preprocess import ImageInput, Pixels

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


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
    pixels = read_image(tmp_path / "a.png")
    assert pixels.shape == (*shape, 3)
    assert tuple(pixels[0, 0]) == top_left


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - RED).max() < 8


def test_palette_with_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*GREEN, *BLUE])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "a.png", transparency=0)
    pixels = read_image(tmp_path / "a.png")
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[1, 1]) == BLUE


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_lies_on_white(tmp_path: Path, alpha: int) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, alpha)).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - (255 - alpha)).max() <= 1


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.new("LA", (4, 4), (10, 255)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 10).all()


def test_16_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    values = np.array([[0, 255, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert read_image(tmp_path / name)[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_one_bit(tmp_path: Path) -> None:
    Image.new("1", (9, 4), 1).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED, BLUE)]
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50, **options)
    assert tuple(read_image(tmp_path / name)[3, 3]) == GREEN


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match="floating-point"):
        read_image(tmp_path / "a.tif")


@given(share=st.floats(0.01, 0.97))
def test_a_truncated_jpeg_is_an_error(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(MediaError) as error:
        read_image(path)
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
        read_image(path)


def test_size_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _two_colours().save(tmp_path / "a.bmp")
    monkeypatch.setattr(image_module, "MAX_PIXELS", 799)
    with pytest.raises(MediaError, match="40×20"):
        read_image(tmp_path / "a.bmp")
    header = bytearray((tmp_path / "a.bmp").read_bytes())
    header[18:26] = struct.pack("<ii", 60_000, 60_000)  # claims 3.6 gigapixels
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(MediaError):
        read_image(tmp_path / "bomb.bmp")


def test_postscript_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(MediaError, match="no known image format"):
        read_image(tmp_path / "a.jpg")


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for name, reason in (("none.png", "does not exist"), ("empty.png", "empty"), (".", "regular file")):
        with pytest.raises(MediaError, match=reason):
            read_image(tmp_path / name)


def test_the_input_resizes_straight_and_normalises(tmp_path: Path) -> None:
    _two_colours().save(tmp_path / "a.png")
    read = ImageInput(Pixels((8, 6), "nearest", (0.5, 0.25, 0.0), (0.5, 0.5, 2.0)))
    array = read(tmp_path / "a.png")
    assert array.shape == (3, 8, 6)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[:, 0, 0], [1.0, -0.5, 0.0])
    np.testing.assert_allclose(array[:, 7, 5], [-1.0, -0.5, 0.5])
