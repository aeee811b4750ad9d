"""How containers lay their parts one after the other, and whether a file holds all that it announces.

A download that broke off must not pass for a short clip or recording: containers say how long the part with the media
is, an MP3's first frame may say how many follow, Ogg's pages have checksums. Other formats (MPEG streams, ADTS …)
announce nothing, and a part of them cannot be told from a whole. Reads names and sizes; decodes nothing.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from epalm.errors import MediaError
from epalm.extract.media.limits import warn_about
from epalm.media import Stretch, composed

_AGAIN = "download or copy it again"
_GIGABYTE = 1 << 30
_HEADERS = 1 << 16  # bytes by which a placeholder may fall short of the largest size
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # of Matroska: a header, then what holds all else
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")
_VITAL = (b"moov", b"mdat", b"moof")  # others may be cut: what comes behind the media is sometimes padding
# The first frame of an MP3 that says how many there are, and how many bytes; where depends on version and channels.
_INFO = re.compile(rb"\xff[\xe0-\xff]..(?:.{9}|.{17}|.{32})(?:Xing|Info)\0\0\0[\3\7\x0b\x0f](.{4})(.{4})", re.DOTALL)
# Ogg: how a page begins, the bytes of its head, and where its checksum lies in that.
_PAGE, _HEAD, _CHECKSUM = b"OggS\0", 27, slice(22, 26)
_LARGEST_PAGE = _HEAD + 255 + 255 * 255  # bytes
_MOST = 10  # a damaged tenth of an Ogg file is too much of it
_BLOCK = 1 << 18  # bytes that are read at once
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_FINAL_TAG = 128  # bytes of an ID3v1 tag, which some writers put at the end


class Form(NamedTuple):
    """How chunks lie: `head` is the layout of a chunk's name and size, as `struct` writes it."""

    start: int  # of the first chunk
    head: str
    pad: int = 1  # a chunk takes a multiple of so many bytes
    inclusive: bool = False  # the size counts the head, too
    behind: int = 0  # bytes that follow the content: a checksum


class Chunk(NamedTuple):
    """A part of a file, as its head announces it; a `length` below 0 is an impossible one."""

    name: bytes
    place: int  # of its head
    start: int  # of its content
    length: int  # of its content
    end: int  # where the next one begins


RIFF = Form(12, "<4sI", pad=2)
IFF = Form(12, ">4sI", pad=2)
PNG = Form(8, ">I4s", behind=4)
BOXES = Form(0, ">I4s", inclusive=True)  # of MP4 and AVIF
# How recordings and clips begin that are made of chunks.
_FORMS = {
    rb"(RIFF|RF64|BW64)....(WAVE|AVI )": RIFF,
    rb"RIFX....WAVE|FORM....AIF[FC]": IFF,
    rb"caff": Form(8, ">4sQ"),
    rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0": Form(40, "<16sQ", pad=8, inclusive=True),  # Wave64
}


def walk(file: BinaryIO, form: Form, size: int, *, most: int = 100_000) -> Iterator[Chunk]:
    """The chunks of a file of `size` bytes; the last one may announce more than there is, or less than nothing."""
    place, room = form.start, struct.calcsize(form.head)
    for _ in range(most):
        if place + room > size:
            return
        file.seek(place)
        name, length = struct.unpack(form.head, file.read(room))
        if isinstance(length, bytes):
            name, length = length, name
        start = place + room
        if form is BOXES and length == 0:  # to the end of the file
            length = size - place
        elif form is BOXES and length == 1:  # in 64 bits
            length, start = int.from_bytes(file.read(8), "big"), start + 8
        if form.inclusive:
            length -= start - place
        end = start + length + form.behind
        end += -end % form.pad
        yield Chunk(name, place, start, length, end)
        if length < 0:
            return
        place = end


def end_of_tags(file: BinaryIO) -> int:
    """Where the content begins behind ID3 tags, which some tools put before any format; 0 without any."""
    start = 0
    for _ in range(1_000):
        file.seek(start)
        head = file.read(10)
        if not head.startswith(b"ID3") or len(head) < 10:
            break
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return start


def require_whole(file: BinaryIO, what: str) -> BinaryIO:
    """The file itself, from its beginning; one that says how long its samples are where its writer did not know.

    Warns of an Ogg file with damaged pages, which decoders leave out without a word. Raises MediaError: the file ends
    before the end that it announces, or a tenth of it or more is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(1 << 10)
    corrections = dict[int, bytes]()
    if head.startswith(_EBML):
        end = _end_of_segment(head)
    elif head.startswith(_PAGE):
        end = _check_pages(file, what, size)
    elif head[4:8] in _BOXES:
        end = max((box.end for box in walk(file, BOXES, size) if box.name in _VITAL and box.length >= 0), default=None)
    else:
        end, corrections = _end_of_samples(file, head, size)
    if end is not None and end > size:
        raise MediaError(f"the {what} is cut off: it announces {end:,} bytes and has {size:,}", hint=_AGAIN)
    file.seek(0)
    if not corrections:
        return file
    stretches, place = list[Stretch](), 0
    for start, right in sorted(corrections.items()):
        stretches += [(place, start - place), right]
        place = start + len(right)
    return composed(file, [*stretches, (place, size - place)])


def _known_end(start: int, length: int, size: int) -> int | None:
    """Where media of `length` bytes from `start` end; None for a length that its writer did not know.

    Writers to a pipe say 0, or a round number of gigabytes but for headers. Some tools say twice what they write.
    """
    large = length > _GIGABYTE - _HEADERS and min(length % _GIGABYTE, -length % _GIGABYTE) < _HEADERS
    unknown = large or not 0 < length < 1 << 63 or length == 2 * (size - start)
    return None if unknown else start + length


def _end_of_samples(file: BinaryIO, head: bytes, size: int) -> tuple[int | None, dict[int, bytes]]:
    """Where the samples of WAVE and its like end, or the frames of AVI: the index behind can be done without.

    Where that is not known, also what is to stand at which place: FFmpeg believes such lengths.
    """
    if head.startswith(b".snd"):
        start, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        end = _known_end(start, length, size)
        return end, {} if end else {8: _number(size - start, 4, ">")}
    form = next((form for magic, form in _FORMS.items() if re.match(magic, head, re.DOTALL)), None)
    chunks, long = walk(file, form, size) if form else iter(()), None
    for chunk in chunks:
        assert form
        file.seek(chunk.start)
        begin = file.read(16)
        if chunk.name == b"ds64":  # sizes beyond 32 bits: of the file, then of the samples
            long = chunk.start + 8, 8, int.from_bytes(begin[8:], "little")
        if not (chunk.name + begin).startswith((b"data", b"SSND", b"LISTmovi")):
            continue
        # Without a length it goes to the end of the file, but for one in which other chunks do.
        if chunk.length == 0 and any(other.end == size for other in chunks):
            raise MediaError("the recording has no samples", hint="record or download it again")
        width = struct.calcsize(form.head) - len(chunk.name)
        place, width, length = long or (chunk.start - width, width, chunk.length)
        end, order = _known_end(chunk.start, length, size), form.head[0]
        if end or begin.startswith(b"movi"):
            return end, {}
        corrections = {place: _number(size - (chunk.place if form.inclusive else chunk.start), width, order)}
        return None, corrections | ({4: _number(size - 8, 4, order)} if form is IFF else {})
    return None, {}


def _number(value: int, width: int, order: str) -> bytes:
    return min(max(0, value), (1 << 8 * width) - 1).to_bytes(width, "little" if order == "<" else "big")


def _end_of_segment(head: bytes) -> int | None:
    """None where its size is unknown, as in what was broadcast."""
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_EBML) + len(_SEGMENT) or not head[at : at + 1].strip(b"\0"):
        return None
    width = 9 - head[at].bit_length()  # bytes; the highest bit that is set says how many
    largest = (1 << (7 * width)) - 1
    length = int.from_bytes(head[at : at + width], "big") & largest
    return None if length == largest else at + width + length


def _check_pages(file: BinaryIO, what: str, size: int) -> int | None:
    """Add up what lies outside of Ogg pages that fit their checksums; where a page ends that is cut off.

    Raises MediaError: that is a tenth of the file or more.
    """
    file.seek(0)
    window, at, place, damaged = b"", 0, 0, 0
    while place < size:
        if len(window) - at < _LARGEST_PAGE:
            window, at = window[at:] + file.read(_BLOCK), 0
        length = 0
        if window.startswith(_PAGE, at):
            count = window[at + _HEAD - 1] if len(window) >= at + _HEAD else 255
            length = _HEAD + count + sum(window[at + _HEAD : at + _HEAD + count])
            if place + length > size:
                return place + length
        if not length or not _is_sound(window[at : at + length]):
            following, left = window.find(_PAGE, at + 1), len(window) - at
            length = following - at if following > 0 else left if place + left >= size else left - len(_PAGE)
            damaged += 0 if place + length == size and length == _FINAL_TAG else length
        place, at = place + length, at + length
    if damaged:
        fault = f"{damaged:,} of its {size:,} bytes do not fit their checksums"
        if damaged * _MOST >= size:
            raise MediaError(f"the {what} is damaged: {fault}", hint=_AGAIN)
        warn_about(f"{fault}, and are left out", hint=f"play it, and {_AGAIN}")
    return None


def _is_sound(page: bytes) -> bool:
    """Whether an Ogg page fits its checksum.

    That is zlib's with the bits of every byte, and of the result, in the other order; it begins and ends with ones.
    """
    content = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    reversed_sum = zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reversed_sum.to_bytes(4, "big").translate(_REVERSED) == page[_CHECKSUM]


def announced_frames(file: BinaryIO) -> tuple[int, int | None]:
    """How many frames of sound an MP3's first one says that there are, 0 for unknown; and where the last one ends."""
    start = end_of_tags(file)
    file.seek(start)
    info = _INFO.search(file.read(_HEADERS))
    if info is None:
        return 0, None
    count, length = (int.from_bytes(number, "big") for number in info.groups())
    return (0, None) if _known_end(0, count, 0) is None else (count, _known_end(start + info.start(), length, 0))
