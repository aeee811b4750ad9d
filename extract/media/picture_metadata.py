"""What a picture's file says beside its pixels is kept from the decoder, so that it cannot fail over it.

Texts, profiles, EXIF and XMP may be damaged or huge while the pixels are whole. Of all these only the orientation in
EXIF is shown; where that is damaged, the picture stays as stored. WebP's decoder does not look at them.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL.IcoImagePlugin import IcoFile

from epalm.errors import MediaError
from epalm.extract.media.chunks import PNG, Chunk, walk
from epalm.media import Stretch, composed

_MOST = 1 << 20  # bytes of metadata that are looked at, and that are read at once
_REPAIR = "download or copy it again"
_PNG, _EXIF = b"\x89PNG\r\n\x1a\n", b"Exif\0\0"
_PNG_PIXELS = {b"IHDR": "H", b"PLTE": "P", b"tRNS": "t", b"IDAT": "D"}  # PNG's chunks that decide over pixels
_NO_PIXELS = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # JPEG: comments, and application segments but JFIF's and Adobe's
# libavif reads items of these types for nothing but metadata.
_AVIF_METADATA = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)(?:Exif|mime)", re.DOTALL)
# TIFF's tags that decide how pixels are decoded; of the others, these lead to more directories.
_TIFF_PIXELS = {
    *range(254, 260), 262, 263, *range(264, 267), 273, 274, *range(277, 281), 284, 292, 293, 317, *range(320, 326),
    332, 334, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 34016,
}  # fmt: skip
_ORIENTATION, _TIFF_DIRECTORIES = 274, {34665, 34853, 40965}
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes of others are 1


def without_metadata(file: BinaryIO) -> tuple[BinaryIO, bytes]:
    """The file as a decoder is to see it, which reads `file` on, and what was taken out of it as EXIF.

    TIFF's orientation stays in: its decoder turns the pixels. Raises MediaError: a PNG's checksum is wrong, or its
    parts or a TIFF's tags are not those of a picture.
    """
    head = file.read(16)
    size = file.seek(0, os.SEEK_END)
    stretches, exif = list[Stretch](), list[bytes]()
    if head.startswith(_PNG):
        stretches += _png(file, size, exif)
    elif head.startswith(b"\xff\xd8\xff"):
        stretches += _jpeg(file, size, exif)
    elif head.startswith(b"\0\0\1\0"):
        file.seek(0)
        largest = IcoFile(file).entry[:1]  # which its decoder takes, too
        inner = composed(file, [(one.offset, one.size) for one in largest])
        if inner.read(8) == _PNG:
            inner.seek(0)
            return without_metadata(inner)
    elif head[4:8] == b"ftyp":
        file.seek(0)
        begin = file.read(_MOST)
        stretches += [_AVIF_METADATA.sub(rb"\1free", begin), (len(begin), size - len(begin))]
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        stretches += _tiff(file, size, head)
    file.seek(0)
    return composed(file, stretches) if stretches else file, b"".join(exif)


def _png(file: BinaryIO, size: int, exif: list[bytes]) -> Iterator[Stretch]:
    yield 0, 8
    order = ""
    file.seek(25)
    palette = file.read(1) == b"\3"
    for chunk in walk(file, PNG, size, most=size):
        if (kind := chunk.name) == b"IEND":
            break
        if kind in _PNG_PIXELS and (palette or kind != b"PLTE"):  # to true colours a palette is mere advice
            if _is_sound(file, chunk) is False:
                raise MediaError(f"the picture is damaged: the checksum of its {kind.decode()} is wrong", hint=_REPAIR)
            order += "" if order.endswith(_PNG_PIXELS[kind]) else _PNG_PIXELS[kind]
            yield chunk.place, chunk.end - chunk.place
        elif kind[0] & 0x20 == 0 and kind != b"PLTE":  # a capital: no decoder may pass over it
            raise MediaError("the picture is damaged: a part of it is of unknown kind", hint=_REPAIR)
        elif kind == b"eXIf" and chunk.length <= _MOST and not exif and _is_sound(file, chunk):
            file.seek(chunk.start)
            exif.append(file.read(chunk.length))
    if not re.fullmatch("HPt?D" if palette else "Ht?D", order):
        raise MediaError("the picture is damaged: its parts are not in order or not all there", hint=_REPAIR)
    yield b"\0\0\0\0IEND\xaeB\x60\x82"


def _is_sound(file: BinaryIO, chunk: Chunk) -> bool | None:
    """Whether a chunk of PNG fits its checksum; None where the file ends before that."""
    file.seek(chunk.start)
    crc, left = zlib.crc32(chunk.name), chunk.length
    while left > 0 and (block := file.read(min(left, _MOST))):
        crc, left = zlib.crc32(block, crc), left - len(block)
    checksum = file.read(4)
    return None if left or len(checksum) < 4 else checksum == crc.to_bytes(4, "big")


def _jpeg(file: BinaryIO, size: int, exif: list[bytes]) -> Iterator[Stretch]:
    yield 0, 2
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
            yield place, length
        elif head[1] == 0xE1 and len(exif) < 16:
            data = file.read(length - 4)
            if data.startswith(_EXIF):
                exif.append(data.removeprefix(_EXIF))
        place += length
    yield place, size - place


def _tiff(file: BinaryIO, size: int, head: bytes) -> Iterator[Stretch]:
    """With no other tags in its first directory than pixels need, where one of the others is damaged or large."""
    order = "<" if head[:1] == b"I" else ">"
    layouts = ("Q", "HHQ8s", "Q") if b"+" in head[2:4] else ("H", "HHI4s", "I")
    counted, entry, number = (order + layout for layout in layouts)
    room = struct.calcsize(number)
    place = struct.unpack_from(number, head, room)[0]
    file.seek(place)
    count = struct.unpack(counted, file.read(struct.calcsize(counted)))[0]
    table = file.read(min(count * struct.calcsize(entry), _MOST))
    if len(table) < count * struct.calcsize(entry):
        return
    entries = list(struct.iter_unpack(entry, table))
    deciding = [tag for tag, *_ in entries if tag in _TIFF_PIXELS]
    if len(set(deciding)) < len(deciding):
        raise MediaError("the picture is damaged: its directory says things twice", hint=_REPAIR)

    def is_harmless(tag: int, kind: int, values: int, data: bytes) -> bool:
        if tag == _ORIENTATION:
            return kind in (3, 4) and values == 1
        length = values * _TIFF_SIZES.get(kind, 1)
        outside = length > room and struct.unpack(number, data)[0] + length > size
        return tag in _TIFF_PIXELS or not (outside or length > _MOST or tag in _TIFF_DIRECTORIES)

    if not all(is_harmless(*one) for one in entries):
        kept = [struct.pack(entry, *one) for one in entries if one[0] in _TIFF_PIXELS and is_harmless(*one)]
        directory = struct.pack(counted, len(kept)) + b"".join(kept) + bytes(room)  # no other follows
        after = place + len(directory)
        yield from ((0, place), directory, (after, size - after))
