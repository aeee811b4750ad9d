"""Pictures that nobody means well with: bombs, lies in headers, cut files, other files in disguise. Bytes by name."""

import io
import pickle
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

Files = Iterator[tuple[str, bytes]]
NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
FORMATS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpg": {"quality": 95},
    "gif": {},
    "webp": {"lossless": True},
    "bmp": {},
    "tif": {"compression": "tiff_adobe_deflate"},
    "ppm": {},
    "tga": {"compression": "tga_rle"},
    "avif": {},
    "ico": {},
}


def saved(image: Image.Image, extension: str, **options: Any) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension)
    image.save(file, name, **options)
    return file.getvalue()


def patched(content: bytes, place: int, layout: str, *values: int) -> bytes:
    """The bytes with `values` put in at `place`."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, place, *values)
    return bytes(changed)


def png(width: int, height: int, *, bits: int, colour: int, rows: int, extra: bytes = b"") -> bytes:
    """A PNG of zeros that claims width × height and holds `rows` rows, of `bits` a sample."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * bits * channels + 7) // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    parts = chunk(b"IHDR", header), extra, palette, chunk(b"IDAT", packed), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def changed(content: bytes, seed: int) -> bytes:
    """The bytes with some of them changed: of the header for even seeds, anywhere for odd ones."""
    rng, altered = np.random.default_rng(seed), bytearray(content)
    reach = len(altered) if seed % 2 else min(len(altered), 600)
    for place in rng.integers(0, reach, 1 + seed * 3):
        altered[place] = int(rng.integers(256))
    return bytes(altered)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bombs() -> Files:
    """Little that claims, or is, a lot."""
    yield "20000x20000.png", png(20_000, 20_000, bits=1, colour=0, rows=20_000)
    yield "20000x20000-empty.png", png(20_000, 20_000, bits=8, colour=6, rows=1)
    yield "largest-claim.png", png(2**31 - 1, 2**31 - 1, bits=1, colour=0, rows=0)
    yield "wide.png", png(2**31 - 1, 1, bits=1, colour=0, rows=0)
    yield (
        "text.png",
        png(8, 8, bits=8, colour=0, rows=8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27)))),
    )
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 27)))
    yield "profile.png", png(8, 8, bits=8, colour=2, rows=8, extra=profile)
    yield "rows-too-many.png", png(64, 64, bits=8, colour=2, rows=200_000)
    jpeg = saved(Image.fromarray(NOISE), "jpg")
    yield "65535.jpg", patched(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 65_535, 65_535)
    yield "4000x4000.jpg", patched(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 4_000, 4_000)
    bmp = saved(Image.fromarray(NOISE), "bmp")
    yield "60000.bmp", patched(bmp, 18, "<ii", 60_000, 60_000)
    yield "upside-down.bmp", patched(bmp, 18, "<ii", 32, -24)
    yield "negative.bmp", patched(bmp, 18, "<ii", -32, -2_000_000_000)
    runs = patched(saved(Image.fromarray(NOISE[..., 0]), "bmp"), 18, "<ii", 9_999, 9_999)
    yield "runs.bmp", patched(runs, 30, "<I", 1) + b"\xff\x01" * 1000
    tiff = saved(Image.fromarray(NOISE), "tif", compression="tiff_lzw")
    for name, tag, kind, count, value in (
        ("wide.tif", 256, 4, 1, 1 << 30),
        ("strips.tif", 279, 4, 1, 0xFFFFFFFF),
        ("offsets.tif", 273, 4, 0x3FFFFFFF, 8),
        ("samples.tif", 277, 3, 1, 65_535),
        ("rows.tif", 278, 4, 1, 0xFFFFFFFF),
    ):
        yield name, _with_tag(tiff, tag, kind, count, value)
    yield "endless.tif", tiff[:-4] + struct.pack("<I", struct.unpack_from("<I", tiff, 4)[0])
    frames = [Image.new("L", (2, 2), number % 256) for number in range(2_000)]
    yield "frames.gif", saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    gif = saved(Image.fromarray(NOISE), "gif")
    yield "screen.gif", patched(gif, 6, "<HH", 65_535, 65_535)
    yield (
        "frames.png",
        saved(Image.fromarray(NOISE), "png", save_all=True, append_images=[Image.fromarray(NOISE)] * 300),
    )
    yield "canvas.webp", b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6
    webp = saved(Image.fromarray(NOISE), "webp", lossless=True)
    yield "length.webp", patched(webp, 4, "<I", 0xFFFFFFF0)
    yield "claim.ppm", b"P6 999999999 999999999 255\n" + bytes(100)
    yield "claim.pgm", b"P5 9999 9999 65535\n" + bytes(100)
    yield "long-number.ppm", b"P6 " + b"9" * 100_000 + b" 1 255\n"
    yield (
        "claim.tga",
        struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65_535, 65_535, 32, 0) + b"\xff\0\0\0\0" * 99,
    )
    inner = png(20_000, 20_000, bits=1, colour=0, rows=0)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    yield "inner.ico", icon + inner
    yield "many.ico", struct.pack("<HHH", 0, 1, 65_535) + icon[6:] * 65_535
    avif = saved(Image.fromarray(NOISE), "avif")
    yield "no-item.avif", avif.replace(b"av01", b"none", 1)
    yield "claim.avif", patched(avif, avif.index(b"ispe") + 8, ">II", 65_535, 65_535)


def _with_tag(tiff: bytes, tag: int, kind: int, count: int, value: int) -> bytes:
    start = struct.unpack_from("<I", tiff, 4)[0] + 2
    entries = (start + 12 * number for number in range(struct.unpack_from("<H", tiff, start - 2)[0]))
    place = next(entry for entry in entries if struct.unpack_from("<H", tiff, entry)[0] == tag)
    return patched(tiff, place, "<HHII", tag, kind, count, value)


def odd() -> Files:
    """Lawful, and at the edge of what there is."""
    for extension, options in FORMATS.items():
        if extension != "ico":
            yield f"1x1.{extension}", saved(Image.new("RGB", (1, 1)), extension, **options)
            yield f"1x999.{extension}", saved(Image.new("RGB", (1, 999)), extension, **options)
            yield f"1501x1.{extension}", saved(Image.new("RGB", (1501, 1)), extension, **options)
    yield "floats.tif", saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "tif")
    yield "depth.png", saved(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999), "png")
    yield "inks.jpg", saved(Image.new("CMYK", (9, 9)), "jpg")
    exif = Image.Exif()
    exif[0x0112] = 99
    yield "orientation.jpg", saved(Image.fromarray(NOISE), "jpg", exif=exif)
    jpeg = saved(Image.fromarray(NOISE), "jpg")
    yield (
        "exif.jpg",
        jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 40) + b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 24 + jpeg[2:],
    )


def cut() -> Files:
    """Parts of pictures, and pictures with a hole."""
    for extension, options in FORMATS.items():
        whole = saved(Image.fromarray(NOISE), extension, **options)
        for percent in (1, 10, 30, 50, 70, 90, 99):
            yield f"cut-{percent}.{extension}", whole[: len(whole) * percent // 100]
        middle = len(whole) // 2
        yield f"hole.{extension}", whole[:middle] + bytes(40) + whole[middle + 40 :]
        for number in range(6):
            yield f"changed-{number}.{extension}", changed(whole, number)


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a pickle was run",)


def disguised(secret: str, url: str) -> Files:
    """Other files under a picture's name, which would have `secret`, a path outside, or `url`, an address, opened."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{url}/a.png"/>'
    yield "a.svg", (svg + f'<image href="file://{secret}"/></svg>').encode()
    yield "svg.png", (f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "{secret}">]>' + svg + "</svg>").encode()
    yield "eps.jpg", f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({secret}) (r) file showpage\n".encode()
    yield "pdf.png", f"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/URI/URI({url})>>>>endobj\n%%EOF".encode()
    yield "pickle.png", pickle.dumps(_Payload())
    array = io.BytesIO()
    np.save(array, np.array([_Payload()], object), allow_pickle=True)
    yield "array.png", array.getvalue()
    yield "page.jpg", f'<html><img src="{url}/a.jpg"><script src="{url}"></script></html>'.encode()
    yield "spider.png", np.zeros(256, ">f4").tobytes()
    yield "nothing.png", b""
    yield "one-byte.jpg", b"\xff"
    yield "zeros.png", bytes(10_000)


def all_pictures(secret: str, url: str) -> Files:
    """All of them."""
    for maker in (bombs, odd, cut):
        yield from maker()
    yield from disguised(secret, url)
