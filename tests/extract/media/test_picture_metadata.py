"""Texts, profiles, EXIF and XMP in a picture's file may be damaged or huge: its pixels come out all the same."""

import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.extract.media.picture_metadata import without_metadata
from epalm.media import MediaFile
from tests.hostile_pictures import NOISE, chunk, patched, saved
from tests.shared_files import program, shared_case

GARBAGE = np.random.default_rng(7).integers(0, 256, 3_000, dtype=np.uint8).tobytes()
TEXT = zlib.compress(bytes(3 << 20))  # more than Pillow takes
PICTURE = Image.fromarray(NOISE)
LOSSLESS: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "tif": {"compression": "tiff_adobe_deflate"}}


def _read(content: bytes, folder: Path) -> np.ndarray:
    (folder / "a").write_bytes(content)
    return read_image(MediaFile(folder / "a"), Limits()).pixels


def _exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = orientation, "a description"
    return tags.tobytes()


def _png_parts() -> Iterator[tuple[str, bytes]]:
    for kind in (
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"iCCP",
        b"eXIf",
        b"gAMA",
        b"cHRM",
        b"pHYs",
        b"sRGB",
        b"sBIT",
        b"acTL",
        b"prVt",
    ):
        yield f"{kind.decode()} of garbage", chunk(kind, GARBAGE)
        yield f"{kind.decode()} of nothing", chunk(kind, b"")
        yield f"{kind.decode()} with a wrong checksum", chunk(kind, GARBAGE)[:-4] + b"\0\0\0\0"
    yield "large zTXt", chunk(b"zTXt", b"a\0\0" + TEXT)
    yield "large iTXt", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TEXT)
    yield "large profile", chunk(b"iCCP", b"a\0\0" + TEXT)
    yield "broken deflate", chunk(b"zTXt", b"Raw profile type exif\0\0" + TEXT[:50])
    yield "no hexadecimal digits", chunk(b"tEXt", b"Raw profile type exif\0\nexif\n    4\nzzzz\n")
    yield "much text", b"".join(chunk(b"tEXt", b"a\0" + bytes([65]) * (1 << 20)) for _ in range(65))
    yield "a frame that is none", chunk(b"fcTL", bytes(26))


def _jpeg_parts() -> Iterator[tuple[str, bytes]]:
    def segment(marker: int, content: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content

    for marker, begin in (
        (0xE1, b"Exif\0\0"), (0xE1, b"Exif\0\0II*\0\x08\0\0\0"), (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xE2, b"ICC_PROFILE\0\1\1"), (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"MPF\0"), (0xE2, b"MPF\0II*\0\x08\0\0\0"), (0xE2, b"FPXR\0"), (0xED, b"Photoshop 3.0\0008BIM"),
        (0xEF, b""), (0xFE, b""),
    ):  # fmt: skip
        yield f"{marker:x} {begin!r}", segment(marker, begin + GARBAGE)
    yield "cut EXIF", segment(0xE1, b"Exif\0\0" + _exif(6)[6:20])
    yield (
        "large profile",
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 255]) + bytes(65_000)) for number in range(1, 256)),
    )
    yield "padding", b"\xff" * 9


def _webp_parts() -> Iterator[tuple[str, bytes, bytes]]:
    for kind in (b"ICCP", b"EXIF", b"XMP "):
        for size in (0, 9, 3_000):
            yield f"{kind.decode()} of {size}", kind, GARBAGE[:size]
    yield "large profile", b"ICCP", bytes(20 << 20)


def _with_webp_part(kind: bytes, content: bytes) -> bytes:
    whole = saved(PICTURE, "webp", lossless=True)
    flag = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}[kind]
    size = b"".join(struct.pack("<I", side - 1)[:3] for side in PICTURE.size)
    part = kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    order = [part, whole[12:]] if kind == b"ICCP" else [whole[12:], part]
    body = b"WEBPVP8X" + struct.pack("<II", 10, flag) + size + b"".join(order)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_png(tmp_path: Path) -> None:
    whole = saved(PICTURE, "png")
    data = whole.index(b"IDAT") - 4
    for name, part in _png_parts():
        for place in (data, len(whole) - 12)[: 1 if len(part) > 1 << 20 else 2]:
            np.testing.assert_array_equal(_read(whole[:place] + part + whole[place:], tmp_path), NOISE, name)


def test_a_png_in_an_icon(tmp_path: Path) -> None:
    whole = saved(PICTURE, "png")
    for name, part in (("none", b""), *_png_parts()):
        if len(part) < 1 << 20:
            inner = whole[:33] + part + whole[33:]
            entry = struct.pack("<BBBBHHII", 32, 24, 0, 0, 1, 32, len(inner), 22)
            content = struct.pack("<HHH", 0, 1, 1) + entry + inner
            np.testing.assert_array_equal(_read(content, tmp_path), NOISE, name)
    with pytest.raises(MediaError, match="checksum"):
        _read(patched(content, content.index(b"IDAT") + 50, "B", content[content.index(b"IDAT") + 50] ^ 1), tmp_path)


def test_jpeg(tmp_path: Path) -> None:
    for options in ({}, {"progressive": True}):
        whole = saved(PICTURE, "jpg", **options)
        expected = _read(whole, tmp_path)
        for name, part in _jpeg_parts():
            np.testing.assert_array_equal(_read(whole[:2] + part + whole[2:], tmp_path), expected, name)


def test_webp(tmp_path: Path) -> None:
    for name, kind, content in _webp_parts():
        np.testing.assert_array_equal(_read(_with_webp_part(kind, content), tmp_path), NOISE, name)


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "tiff_lzw"])
def test_tiff(compression: str | None, tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x010E], tags[0x0131] = "description " * 9, "software " * 9
    tags.get_ifd(34665)[0x9000] = b"0230"
    tags.get_ifd(34853)[1] = "N"
    whole = saved(PICTURE, "tif", compression=compression, exif=tags, icc_profile=bytes(99))
    np.testing.assert_array_equal(_read(whole, tmp_path), NOISE)
    first = struct.unpack_from("<I", whole, 4)[0]
    found = 0
    for index in range(struct.unpack_from("<H", whole, first)[0]):
        place = first + 2 + 12 * index
        if struct.unpack_from("<H", whole, place)[0] in (0x010E, 0x0131, 34665, 34675, 34853):
            found += 1
            for count, offset in ((99, 2**31), (2**31, 8), (2**32 - 1, 2**32 - 1), (99, 3), (1, len(whole) - 1)):
                damaged = patched(whole, place + 4, "<II", count, offset)
                np.testing.assert_array_equal(_read(damaged, tmp_path), NOISE, f"{index}: {count}, {offset}")
    assert found >= 3


@pytest.mark.parametrize("extension", ["avif", "png", "webp", "tif", "jpg"])
def test_exif_and_xmp_of_garbage(extension: str, tmp_path: Path) -> None:
    """Each byte of EXIF in turn, and all of them: the picture is turned or as stored, and never lost."""
    xmp = {} if extension in ("tif", "png") else {"xmp": b"<x:xmpmeta/>" * 9}
    whole = saved(PICTURE, extension, exif=_exif(1), **LOSSLESS.get(extension, {}), **xmp)
    expected = _read(whole, tmp_path)
    assert expected.shape == NOISE.shape
    begin = whole.index(b"MM\0*") if extension != "tif" else whole.index(struct.pack("<HH", 0x0112, 3))
    for place, value in [(place, value) for place in range(begin, begin + 12) for value in (0, 0x7F, 0xFF)]:
        if extension == "tif" and place < begin + 4:
            continue  # another tag, which may be one that decides over pixels
        damaged = patched(whole, place, "B", value)
        if extension == "png":
            start = damaged.index(b"eXIf") - 4
            size = struct.unpack_from(">I", damaged, start)[0]
            damaged = patched(damaged, start + 8 + size, ">I", zlib.crc32(damaged[start + 4 : start + 8 + size]))
        pixels = _read(damaged, tmp_path)
        np.testing.assert_array_equal(np.sort(pixels, axis=None), np.sort(expected, axis=None))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_right_exif_turns_wherever_it_stands(orientation: int, tmp_path: Path) -> None:
    exif = _exif(orientation)
    expected = _read(saved(PICTURE, "tif", exif=exif), tmp_path)
    whole = saved(PICTURE, "png")
    part = chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    for place in (33, len(whole) - 12):
        np.testing.assert_array_equal(_read(whole[:place] + part + whole[place:], tmp_path), expected)
    np.testing.assert_array_equal(_read(_with_webp_part(b"EXIF", exif), tmp_path), expected)
    jpeg = saved(PICTURE, "jpg", exif=exif)
    assert _read(jpeg, tmp_path).shape == expected.shape


def test_what_decides_over_pixels_is_checked(tmp_path: Path) -> None:
    whole = saved(PICTURE.quantize(16), "png", transparency=3)
    for kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
        place = whole.index(kind)
        size = struct.unpack_from(">I", whole, place - 4)[0]
        part = whole[place - 4 : place + 8 + size]
        damages = {
            "flipped": patched(whole, place + 4, "B", whole[place + 4] ^ 1),
            "checksum": patched(whole, place + 4 + size, "B", whole[place + 4 + size] ^ 1),
            "renamed": whole.replace(kind, kind[:3] + bytes([kind[3] ^ 0x20])),
            "after the pixels": whole.replace(part, b"")[:-12] + part + whole[-12:]
            if kind != b"IDAT"
            else whole[:place],
        }
        for name, damaged in damages.items():
            if kind == b"tRNS" and name == "renamed":
                continue  # nobody can know what it was
            with pytest.raises(MediaError) as error:
                _read(damaged, tmp_path)
            assert error.value.hint, name


def test_no_metadata_is_held_in_memory(tmp_path: Path) -> None:
    png, jpeg = saved(PICTURE, "png"), saved(PICTURE, "jpg")
    text = chunk(b"tEXt", b"a\0" + bytes(24 << 20))
    segment = b"\xff\xe2\xff\xff" + bytes(65_533)
    (tmp_path / "a.png").write_bytes(png[:33] + text + png[33:])
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment * 300 + jpeg[2:])
    for name in ("a.png", "a.jpg"):
        with (tmp_path / name).open("rb") as file:
            tracemalloc.start()
            shown, _ = without_metadata(file)
            assert len(shown.read()) < 1 << 20
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
            tracemalloc.stop()


def test_as_imagemagick_shows_them(tmp_path: Path) -> None:
    whole = saved(PICTURE, "png")
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk(b"iTXt", GARBAGE)[:-4] + b"\0\0\0\0" + whole[33:])
    words = [program("convert"), str(tmp_path / "a.png"), "rgb:-"]
    shown = subprocess.run(words, check=False, capture_output=True).stdout
    np.testing.assert_array_equal(np.frombuffer(shown, np.uint8).reshape(NOISE.shape), NOISE)


def test_files_that_were_once_refused() -> None:
    folder = shared_case("png-metadata")
    expected = read_image(MediaFile(folder / "base.png"), Limits()).pixels
    others = list(folder.glob("*.png"))
    assert len(others) > 3
    for path in others:
        np.testing.assert_array_equal(read_image(MediaFile(path), Limits()).pixels, expected)
