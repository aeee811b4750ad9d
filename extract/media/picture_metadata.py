"""What a picture's file says beside its pixels is kept from the decoder, so that it cannot fail over it.

Texts, profiles, EXIF and XMP may be damaged or huge while the pixels are whole. Of all these only the orientation in
EXIF is shown; where that is damaged, the picture stays as stored.
"""

import os
import re
import struct
import zlib
from typing import BinaryIO

from PIL import ExifTags, Image

from epalm.errors import MediaError
from epalm.extract.media.chunks import BOXES, PNG, RIFF, Chunk, walk
from epalm.extract.media.orientation import TURNS, UPRIGHT
from epalm.media import Stretch, composed, length_of

_MOST = 1 << 20  # bytes of metadata that are looked at, and that are read at once
_SMALL = 1 << 16  # bytes of a text that harms nobody
_REPAIR = "download or copy it again"
_PNG, _EXIF = b"\x89PNG\r\n\x1a\n", b"Exif\0\0"
_PNG_PIXELS = {b"IHDR": "H", b"PLTE": "P", b"tRNS": "t", b"IDAT": "D"}  # PNG's chunks that decide over pixels
_NO_PIXELS = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # JPEG: comments, and application segments but JFIF's and Adobe's
_WEBP_FLAGS = 0x20 | 0x08 | 0x04  # profile, EXIF, XMP
# libavif reads items of these types for nothing but metadata.
_AVIF_METADATA = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)(?:Exif|mime)", re.DOTALL)
# TIFF's tags that decide how pixels are decoded; of the others, these lead to more directories.
_TIFF_PIXELS = {
    *range(254, 260), 262, 263, *range(264, 267), 273, 274, *range(277, 281), 284, 292, 293, 317, *range(320, 326),
    332, 334, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 34016,
}  # fmt: skip
_ORIENTATION, _TIFF_DIRECTORIES = 274, {34665, 34853, 40965}
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def without_metadata(file: BinaryIO) -> tuple[BinaryIO, int]:
    """The file as a decoder is to see it, and its EXIF orientation, 1 where there is none or it is damaged.

    TIFF's orientation is not among these: its decoder turns the pixels. `file` stays open below the result.

    Raises:
        MediaError: a PNG's checksum is wrong, or its parts or a TIFF's tags are not those of a picture.
    """
    head = file.read(16)
    size = file.seek(0, os.SEEK_END)
    stretches: list[Stretch] = [(0, size)]
    exif = b""
    if head.startswith(_PNG):
        stretches, exif = _png(file, size)
    elif head.startswith(b"\xff\xd8\xff"):
        stretches, exif = _jpeg(file, size)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        stretches, exif = _webp(file, size)
    elif head.startswith(b"\0\0\1\0") and (inner := _png_of_icon(file)):
        return without_metadata(inner)
    elif head[4:8] == b"ftyp":
        file.seek(0)
        begin = file.read(_MOST)
        stretches = [_AVIF_METADATA.sub(rb"\1free", begin), (len(begin), size - len(begin))]
    elif head[4:8] == b"jP  ":
        stretches = _jpeg2000(file, size)
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        stretches = _tiff(file, size, "<" if head[:1] == b"I" else ">", big=head[2:4] in (b"+\0", b"\0+"))
    file.seek(0)
    if stretches != [(0, size)]:
        file = composed(file, stretches)
    return file, _orientation(exif)


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # Pillow's reader raises anything on damaged bytes
        return UPRIGHT
    return orientation if orientation in TURNS else UPRIGHT


def _keep(stretches: list[Stretch], start: int, end: int) -> None:
    """Add a stretch, to the last one where it follows that: files of many small parts take no memory."""
    last = stretches[-1] if stretches else b""
    if isinstance(last, tuple) and sum(last) == start:
        stretches[-1] = (last[0], end - last[0])
    else:
        stretches.append((start, end - start))


def _png(file: BinaryIO, size: int) -> tuple[list[Stretch], bytes]:
    stretches: list[Stretch] = [(0, 8)]
    exif, order = b"", ""
    file.seek(25)
    palette = file.read(1) == b"\3"
    for chunk in walk(file, PNG, size, most=size):
        if (kind := chunk.name) == b"IEND":
            break
        decides = kind in _PNG_PIXELS and (palette or kind != b"PLTE")  # to true colours a palette is mere advice
        looked_at = kind in (b"eXIf", b"tEXt", b"zTXt") and chunk.length <= _MOST
        if decides:
            if _is_sound(file, chunk) is False:
                raise MediaError(f"the picture is damaged: the checksum of its {kind.decode()} is wrong", hint=_REPAIR)
            order += "" if order.endswith(_PNG_PIXELS[kind]) else _PNG_PIXELS[kind]
            _keep(stretches, chunk.place, chunk.end)
        elif kind[0] & 0x20 == 0 and kind != b"PLTE":  # a capital: no decoder may pass over it
            raise MediaError("the picture is damaged: a part of it is of unknown kind", hint=_REPAIR)
        elif looked_at and not exif and _is_sound(file, chunk):
            file.seek(chunk.start)
            content = file.read(chunk.length)
            exif = content if kind == b"eXIf" else _raw_profile(kind, content)
    if not re.fullmatch("HPt?D" if palette else "Ht?D", order):
        raise MediaError("the picture is damaged: its parts are not in order or not all there", hint=_REPAIR)
    return [*stretches, b"\0\0\0\0IEND\xaeB\x60\x82"], exif


def _is_sound(file: BinaryIO, chunk: Chunk) -> bool | None:
    """Whether a chunk of PNG fits its checksum; None where the file ends before that."""
    file.seek(chunk.start)
    crc, left = zlib.crc32(chunk.name), chunk.length
    while left > 0 and (block := file.read(min(left, _MOST))):
        crc, left = zlib.crc32(block, crc), left - len(block)
    checksum = file.read(4)
    return None if left or len(checksum) < 4 else checksum == crc.to_bytes(4, "big")


def _png_of_icon(file: BinaryIO) -> BinaryIO | None:
    """The largest picture of an icon, which its decoder takes too, where it is a PNG."""
    file.seek(4)
    entries = list(struct.iter_unpack("<BBBBHHII", file.read(16 * int.from_bytes(file.read(2), "little"))))
    if not entries:
        return None
    # The width and height 0 are 256; of equal sizes the one of fewest bits.
    largest = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), -(entry[5] or 256)))
    length, offset = largest[-2:]
    file.seek(offset)
    return composed(file, [(offset, length)]) if file.read(8) == _PNG else None


def _raw_profile(kind: bytes, text: bytes) -> bytes:
    """The EXIF that ImageMagick writes as a text: a line for its name, one for its length, then hexadecimal digits."""
    name, _, content = text.partition(b"\0")
    if name not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return b""
    try:
        text = zlib.decompressobj().decompress(content[1:], _MOST) if kind == b"zTXt" else content
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("latin-1"))
    except (zlib.error, ValueError):
        return b""


def _jpeg(file: BinaryIO, size: int) -> tuple[list[Stretch], bytes]:
    stretches: list[Stretch] = [(0, 2)]
    exif = b""
    place = 2
    while True:
        file.seek(place)
        head = file.read(4)
        if head[:2] == b"\xff\xff":  # padding
            place += 1
            continue
        if len(head) < 4 or head[0] != 0xFF or 0xD0 <= head[1] <= 0xDA or head[1] in (0x00, 0x01):
            break
        length = 2 + int.from_bytes(head[2:], "big")
        if place + length > size:
            break
        if head[1] not in _NO_PIXELS:
            _keep(stretches, place, place + length)
        elif head[1] == 0xE1 and len(exif) < _MOST:
            data = file.read(length - 4)
            if data.startswith(_EXIF):
                exif += data if not exif else data[len(_EXIF) :]
        place += length
    return [*stretches, (place, size - place)], exif


def _jpeg2000(file: BinaryIO, size: int) -> list[Stretch]:
    """Without large texts, over which its decoder stumbles, and without the resolution in its header."""
    stretches: list[Stretch] = []
    place = 0
    for box in walk(file, BOXES, size, most=size):
        if box.name == b"jp2c" or box.length < 0:
            break
        file.seek(box.start)
        content = file.read(min(box.length, _MOST)) if box.name == b"jp2h" else b""
        if b"res " in content:
            _keep(stretches, box.place, box.start)
            stretches.append(content.replace(b"res ", b"free"))
            _keep(stretches, box.start + len(content), box.end)
        elif box.name not in (b"uuid", b"xml ") or box.length <= _SMALL:
            _keep(stretches, box.place, box.end)
        place = box.end
    _keep(stretches, place, size)
    return stretches


def _webp(file: BinaryIO, size: int) -> tuple[list[Stretch], bytes]:
    stretches: list[Stretch] = []
    exif = b""
    file.seek(4)
    end = min(size, 8 + int.from_bytes(file.read(4), "little"))
    for chunk in walk(file, RIFF, size, most=size):
        if chunk.start > end:
            break
        file.seek(chunk.start)
        if chunk.name == b"VP8X" and chunk.length:
            flags = file.read(1)[0] & ~_WEBP_FLAGS
            _keep(stretches, chunk.place, chunk.start)
            stretches.append(bytes([flags]))
            _keep(stretches, chunk.start + 1, chunk.end)
        elif chunk.name == b"EXIF":
            exif = exif or file.read(min(chunk.length, _MOST))
        elif chunk.name not in (b"ICCP", b"XMP "):
            _keep(stretches, chunk.place, chunk.end)
    kept = sum(length_of(stretch) for stretch in stretches)
    return [b"RIFF" + struct.pack("<I", min(4 + kept, 2**32 - 1)) + b"WEBP", *stretches], exif


def _tiff(file: BinaryIO, size: int, order: str, *, big: bool) -> list[Stretch]:
    """With no other tags in its first directory than pixels need, where one of the others is damaged or large."""
    whole: list[Stretch] = [(0, size)]
    number, entry = (order + "Q", order + "HHQ8s") if big else (order + "I", order + "HHI4s")
    counted = order + ("Q" if big else "H")
    file.seek(8 if big else 4)
    place = int.from_bytes(file.read(struct.calcsize(number)), "little" if order == "<" else "big")
    file.seek(place)
    begin = file.read(struct.calcsize(counted))
    if len(begin) < struct.calcsize(counted):
        return whole
    count = struct.unpack(counted, begin)[0]
    table = file.read(min(count * struct.calcsize(entry), _MOST))
    if len(table) < count * struct.calcsize(entry):
        return whole
    entries = list(struct.iter_unpack(entry, table))
    deciding = [one[0] for one in entries if one[0] in _TIFF_PIXELS]
    if len(set(deciding)) < len(deciding):
        raise MediaError("the picture is damaged: its directory says things twice", hint=_REPAIR)
    room = struct.calcsize(number)

    def harmless(tag: int, kind: int, values: int, data: bytes) -> bool:
        if tag == _ORIENTATION:
            return kind in (3, 4) and values == 1
        length = values * _TIFF_SIZES.get(kind, 1)
        outside = length > room and struct.unpack(number, data)[0] + length > size
        return tag in _TIFF_PIXELS or not (outside or length > _MOST or tag in _TIFF_DIRECTORIES)

    if all(harmless(*one) for one in entries):
        return whole
    kept = [struct.pack(entry, *one) for one in entries if one[0] in _TIFF_PIXELS and harmless(*one)]
    directory = struct.pack(counted, len(kept)) + b"".join(kept) + bytes(room)  # no other follows
    after = place + len(directory)
    return [(0, place), directory, (after, size - after)]
