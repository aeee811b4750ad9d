"""Integers of every depth, byte order and layout come out as the picture that they are, or are refused."""

import io
import struct
import subprocess
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile
from tests.hostile_pictures import chunk
from tests.shared_files import program, shared_case

HEIGHT, WIDTH = 11, 19


def _read(content: bytes | Path, folder: Path | None = None) -> np.ndarray:
    if isinstance(content, bytes):
        assert folder
        (folder / "a").write_bytes(content)
        content = folder / "a"
    return read_image(MediaFile(content), Limits()).pixels


def _values(bits: int, channels: int = 1) -> np.ndarray:
    """(H, W, C) of all of the depth's range, black and white among them."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, channels), dtype=np.uint64)
    values[0, 0], values[-1, -1] = 0, 2**bits - 1
    return values


def _shown(values: np.ndarray, bits: int) -> np.ndarray:
    grey = np.rint(values * (255 / (2**bits - 1)))
    return np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey


def _close(pixels: np.ndarray, expected: np.ndarray, most: int = 1) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= most


def _packed(rows: np.ndarray, bits: int, order: str) -> bytes:
    """Rows (H, N) of integers as a TIFF or PNG holds them: each begins at a byte."""
    if bits % 8 == 0:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    digits = (rows[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def _tiff(
    values: np.ndarray,
    bits: int,
    order: str,
    *,
    photometric: int = 1,
    kind: int = 1,
    planar: int = 1,
    deflated: int = 0,
    extra: int | None = None,
) -> bytes:
    """`deflated` 1 is without a predictor and 2 with horizontal differences; extra channels are no alpha."""
    channels = values.shape[2]
    differences = values.copy()
    if deflated == 2:
        differences[:, 1:] = (values[:, 1:] - values[:, :-1]) % 2**bits
    planes = [differences.reshape(len(values), -1)]
    if planar == 2:
        planes = [differences[..., index] for index in range(channels)]
    strips = [_packed(plane, bits, order) for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [WIDTH]), 257: ("H", [HEIGHT]), 258: ("H", [bits] * channels), 259: ("H", [8 if deflated else 1]),
        262: ("H", [photometric]), 273: ("I", [0] * len(strips)), 277: ("H", [channels]), 278: ("H", [HEIGHT]),
        279: ("I", [len(strip) for strip in strips]), 284: ("H", [planar]), 317: ("H", [max(1, deflated)]),
        **({} if extra is None else {338: ("H", [extra])}), 339: ("H", [kind] * channels),
    }  # fmt: skip
    place = 8 + 2 + 12 * len(tags) + 4
    outside = {}
    for tag, (letter, numbers) in tags.items():
        if struct.calcsize(letter) * len(numbers) > 4:
            outside[tag] = place
            place += struct.calcsize(letter) * len(numbers)
    tags[273] = ("I", [place + sum(map(len, strips[:index])) for index in range(len(strips))])
    file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    rest = b""
    for tag, (letter, numbers) in tags.items():
        content = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        file += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[letter], len(numbers))
        file += struct.pack(order + "I", outside[tag]) if tag in outside else content.ljust(4, b"\0")
        rest += content if tag in outside else b""
    return file + bytes(4) + rest + b"".join(strips)


def _tiffs() -> Iterator[tuple[str, int, bool, dict[str, Any]]]:
    for bits, order, photometric, deflated in product((1, 2, 4, 8, 12, 16, 32), "<>", (0, 1), (0, 1, 2)):
        if deflated < 2 or bits in (8, 16, 32):
            # Pillow has no way to read these: they are refused.
            known = (
                bits <= 8 or (photometric == 1 and order == "<") or (bits == 16 and photometric + (order == "<") > 0)
            )
            yield f"grey{bits}", bits, known, {"order": order, "photometric": photometric, "deflated": deflated}
    for bits, order, planar, deflated in product((8, 16), "<>", (1, 2), (0, 1, 2)):
        yield f"rgb{bits}", bits, True, {"order": order, "photometric": 2, "planar": planar, "deflated": deflated}


@pytest.mark.parametrize("name", dict.fromkeys(one[0] for one in _tiffs()))
def test_tiff(name: str, tmp_path: Path) -> None:
    for other, bits, known, options in _tiffs():
        if other != name:
            continue
        values = _values(bits, 3 if name.startswith("rgb") else 1)
        stored = 2**bits - 1 - values if options["photometric"] == 0 else values
        try:
            pixels = _read(_tiff(stored, bits, **options), tmp_path)
        except MediaError as error:
            assert not known and error.hint, options
        else:
            _close(pixels, _shown(values, bits))


@pytest.mark.parametrize(("bits", "order", "deflated"), product((8, 16, 32), "<>", (0, 1)))
def test_signed_tiffs_are_refused(bits: int, order: str, deflated: int, tmp_path: Path) -> None:
    for channels, photometric in ((1, 0), (1, 1), (3, 2)):
        content = _tiff(_values(bits, channels), bits, order, photometric=photometric, kind=2, deflated=deflated)
        with pytest.raises(MediaError):
            _read(content, tmp_path)


def _png(values: np.ndarray, bits: int, colour: int, *parts: bytes) -> bytes:
    rows = values.reshape(len(values), -1)
    packed = [b"\0" + _packed(row[None], bits, ">") for row in rows]
    head = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, colour, 0, 0, 0)
    content = chunk(b"IHDR", head) + b"".join(parts) + chunk(b"IDAT", zlib.compress(b"".join(packed)))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
def test_png_with_and_without_a_transparent_colour(
    bits: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 bits only the very colour is transparent, not all that look like it."""
    values = _values(bits, channels)
    near = np.full(channels, 2**bits - 2 if bits > 1 else 0)
    values[3, 4], values[5, 6] = near, near ^ 1
    expected = _shown(values, bits)
    colour = {1: 0, 3: 2}[channels]
    _close(_read(_png(values, bits, colour), tmp_path), expected)
    expected[(values == near).all(axis=2)] = 255
    content = _png(values, bits, colour, chunk(b"tRNS", near.astype(">u2").tobytes()))
    pixels = _read(content, tmp_path)
    _close(pixels, expected)
    monkeypatch.setattr("epalm.extract.media.image._STRIP", WIDTH * 2)
    np.testing.assert_array_equal(_read(content, tmp_path), pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_with_a_palette(bits: int, tmp_path: Path) -> None:
    values = _values(bits)
    palette = np.random.default_rng(1).integers(0, 256, (2**bits, 3))
    alpha = np.random.default_rng(2).integers(0, 256, 2**bits)
    content = _png(
        values, bits, 3, chunk(b"PLTE", bytes(palette.ravel().tolist())), chunk(b"tRNS", bytes(alpha.tolist()))
    )
    share = alpha[:, None] / 255
    shown = np.rint(palette * share + 255 * (1 - share))
    _close(_read(content, tmp_path), shown[values[..., 0].astype(int)])


@pytest.mark.parametrize(("bits", "channels"), [(8, 2), (16, 2), (8, 4), (16, 4)])
def test_png_with_alpha(bits: int, channels: int, tmp_path: Path) -> None:
    values = _values(bits, channels)
    share = values[..., -1:] / (2**bits - 1)
    shown = _shown(values[..., :-1], bits) * share + 255 * (1 - share)
    pixels = _read(_png(values, bits, {2: 4, 4: 6}[channels]), tmp_path)
    _close(
        pixels, np.rint(shown), most=1 if bits == 8 else 2
    )  # of colours with 16 bits the upper 8 are laid over white


@pytest.mark.parametrize("most", [1, 3, 15, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("magic", [b"P2", b"P3", b"P5", b"P6"])
def test_portable_maps_of_any_maximum(most: int, magic: bytes, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, most + 1, (HEIGHT, WIDTH, 3 if magic in (b"P3", b"P6") else 1))
    plain = magic in (b"P2", b"P3")
    body = (
        " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2" if most > 255 else "u1").tobytes()
    )
    content = b"%s %d %d %d\n" % (magic, WIDTH, HEIGHT, most) + body
    grey = np.rint(values * (255 / most))
    _close(_read(content, tmp_path), np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey)


# Written by ImageMagick as no writer of ours does, and compared with what it reads itself.
_WRITTEN = {
    "mono.bmp": ["-monochrome"],
    "grey4.bmp": ["-colorspace", "Gray", "-colors", "12"],
    "palette.bmp": ["-colors", "50"],
    "rle.bmp": ["-colors", "50", "-compress", "RLE"],
    "565.bmp": ["-define", "bmp:subtype=RGB565"],
    "555.bmp": ["-define", "bmp:subtype=RGB555"],
    "alpha.bmp": ["-alpha", "set", "-channel", "A", "-evaluate", "set", "40%"],
    "grey.tga": ["-colorspace", "Gray"],
    "palette.tga": ["-colors", "50", "-type", "Palette"],
    "rgb.tga": ["-compress", "RLE"],
    "alpha.tga": ["-alpha", "set", "-channel", "A", "-evaluate", "set", "40%"],
    "lossless.webp": ["-define", "webp:lossless=true"],
    "fax.tif": ["-monochrome", "-compress", "Group4"],
    "cmyk16.tif": ["-colorspace", "CMYK", "-depth", "16"],
    "alpha16.tif": ["-alpha", "set", "-channel", "A", "-evaluate", "set", "40%", "-depth", "16", "-endian", "MSB"],
    "palette4.tif": ["-colors", "12", "-type", "Palette", "-compress", "LZW"],
    "grey2.png": ["-colorspace", "Gray", "-depth", "2"],
    "rgb16.png": ["-depth", "16", "-interlace", "PNG"],
    "mono.pbm": ["-monochrome"],
    "icon.ico": [],
}


@pytest.mark.parametrize("name", _WRITTEN)
def test_as_imagemagick_reads_it(name: str, tmp_path: Path) -> None:
    convert = program("convert")
    source, written = tmp_path / "source.png", tmp_path / name
    ramp = np.add.outer(np.arange(32) * 3, np.arange(48) * 2)[..., None] + np.array([0, 40, 80])
    Image.fromarray((ramp % 256).astype(np.uint8)).save(source)
    subprocess.run([convert, source, *_WRITTEN[name], written], check=True)
    show = [convert, str(written), "-auto-orient", "-background", "white", "-alpha", "remove"]
    show += ["-colorspace", "sRGB", "-depth", "8", "ppm:-"]
    shown = subprocess.run(show, check=True, capture_output=True).stdout
    _close(_read(written), np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")))


def test_files_that_were_once_shown_wrongly() -> None:
    folder = shared_case("tiff-depths")
    expected = _read(folder / "b1_16.tif")
    for path in folder.glob("*.tif"):
        try:
            _close(_read(path), expected)
        except MediaError:
            assert path.stem in ("gray16s", "gray32s", "gray32u")
    for path in shared_case("png16-transparent-key").glob("*.png"):
        pixels = _read(path)
        assert (pixels[0] == 255).all() and (pixels[:, 0] == 255).all() and pixels.min() < 255, path
