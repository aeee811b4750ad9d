"""Whether a file ends before it says: a download that broke off must not pass for a short clip or recording.

Containers are walked for the size that they give the part with the media; an MP3's first frame may say how many
follow. Other formats (MPEG streams, ADTS, Ogg but for its last page …) announce nothing, and a part of them cannot
be told from a whole. Reads sizes; decodes nothing.
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from epalm.errors import MediaError

_MOST_BOXES = 1_000
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")
_VITAL = (b"moov", b"mdat", b"moof")  # others may be cut: what comes behind the media is sometimes padding
W64 = bytes.fromhex("2e91cf11a5d628db04c10000")  # behind "riff", as behind the names of the chunks
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes at most
# The first frame of an MP3 that says how many there are; where depends on version and channels.
_INFO = re.compile(rb"\xff[\xe0-\xff]..(?:.{9}|.{17}|.{32})(Xing|Info|VBRI)", re.DOTALL)
_GIGABYTE = 1 << 30
_HEADERS = 1 << 16  # bytes by which a placeholder may fall short of the largest size


class Chunks(NamedTuple):
    """How a format of chunks (name, size, content) is walked to the one that holds the media."""

    start: int  # of the first chunk
    name: int  # bytes of a name
    size: int  # bytes of a size
    order: Literal["little", "big"] = "little"
    pad: int = 2  # a chunk takes a multiple of so many bytes
    inclusive: bool = False  # the size counts name and size, too


RIFF = Chunks(12, 4, 4)
IFF = RIFF._replace(order="big")
_CAF = Chunks(8, 4, 8, "big", pad=1)
WAVE64 = Chunks(40, 16, 8, pad=8, inclusive=True)


def require_whole(file: BinaryIO, what: str) -> None:
    """Raises MediaError when the file ends before the end that it announces; leaves the position anywhere."""
    size = file.seek(0, os.SEEK_END)
    announced = _announced(file, size) or 0
    if announced > size:
        raise MediaError(
            f"the {what} is cut off: it announces {announced:,} bytes and has {size:,}",
            hint="download or copy it again",
        )


def _announced(file: BinaryIO, size: int) -> int | None:
    """The file's size after its own words; None when it has none."""
    file.seek(0)
    head = file.read(16)
    end: int | None = None
    if head.startswith(_EBML):
        end = _end_of_segment(file, size)
    elif head[4:8] in _BOXES:
        end = _end_of_boxes(file, size)
    elif head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and head[8:12] in (b"AVI ", b"WAVE"):
        end = _end_of_riff(file, head, size)
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        end = _end_of_chunk(file, IFF, (b"SSND", b"BODY"), size)
    elif head[:4] == b"caff":
        end = _end_of_chunk(file, _CAF, (b"data",), size)
    elif head == b"riff" + W64:
        end = _end_of_chunk(file, WAVE64, (b"data",), size)
    elif head[:4] == b".snd":
        end = end_of_media(int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big"), size)
    elif head[:4] == b"OggS":
        end = _end_of_page(file, size)
    return end


def end_of_media(start: int, length: int, size: int) -> int | None:
    """Where media of `length` bytes from `start` end; None for a length that its writer did not know.

    Writers to a pipe say 0, or a round number of gigabytes but for headers. Some tools say twice what they write.
    """
    large = length > _GIGABYTE - _HEADERS and min(length % _GIGABYTE, -length % _GIGABYTE) < _HEADERS
    unknown = large or not 0 < length < 1 << 63 or length == 2 * (size - start)
    return None if unknown else start + length


def _end_of_segment(file: BinaryIO, size: int) -> int | None:
    """Matroska: a header, then the segment that holds all else."""
    file.seek(len(_EBML))
    header = _variable_size(file)
    if header is None or file.tell() + header > size:
        return None
    file.seek(header, os.SEEK_CUR)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return None
    segment = _variable_size(file)
    return None if segment is None else file.tell() + segment


def _variable_size(file: BinaryIO) -> int | None:
    """EBML's size of an element; None when it is unknown, as in what was broadcast."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()  # bytes; the highest bit that is set says how many
    rest = file.read(length - 1)
    size = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
    return None if size == (1 << (7 * length)) - 1 else size


def _end_of_boxes(file: BinaryIO, whole: int) -> int | None:
    """MP4: boxes one after the other. The end of the last one without which the media would be incomplete."""
    end, start = None, 0
    for _ in range(_MOST_BOXES):
        if start >= whole:
            break
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            break
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:  # the size follows, in 64 bits
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # 0: to the end of the file, whichever it is
            break
        start += size
        if kind in _VITAL:
            end = start
    return end


def walk_chunks(file: BinaryIO, chunks: Chunks, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name, the place of its content, and the length that it announces."""
    place = chunks.start
    for _ in range(_MOST_BOXES):
        if place >= size:
            return
        file.seek(place)
        head = file.read(chunks.name + chunks.size)
        if len(head) < chunks.name + chunks.size:
            return
        length = int.from_bytes(head[chunks.name :], chunks.order)
        length = max(0, length - len(head)) if chunks.inclusive else length
        yield head[: chunks.name], place + len(head), length
        place += len(head) + length
        place += -place % chunks.pad


def _end_of_chunk(file: BinaryIO, chunks: Chunks, wanted: tuple[bytes, ...], size: int) -> int | None:
    """The end of the chunk whose name begins with a wanted one."""
    for name, start, length in walk_chunks(file, chunks, size):
        if name.startswith(wanted):
            return end_of_media(start, length, size)
    return None


def _end_of_riff(file: BinaryIO, head: bytes, size: int) -> int | None:
    """AVI: the end of the list of frames; the index behind it can be done without. WAVE: the end of the samples."""
    chunks = RIFF._replace(order="big") if head.startswith(b"RIFX") else RIFF
    long = None
    walk = walk_chunks(file, chunks, size)
    for name, start, length in walk:
        if name == b"ds64":  # sizes beyond 32 bits: of the file, of the samples
            file.seek(start + 8)
            long = int.from_bytes(file.read(8), "little")
        if name == b"data":
            # Without a length it goes to the end of the file, but for one in which other chunks do.
            if length == 0 and size in (start + length + length % 2 for _, start, length in walk):
                raise MediaError("the recording has no samples", hint="record or download it again")
            return end_of_media(start, length if long is None else long, size)
        file.seek(start)
        if name == b"LIST" and file.read(4) == b"movi":
            return (
                start + length if length < 2 * _GIGABYTE - 1 else None
            )  # a placeholder of a writer that never came back
    return end_of_media(8, int.from_bytes(head[4:8], chunks.order), size)  # what it is cut before


def _end_of_page(file: BinaryIO, size: int) -> int | None:
    """Ogg: the end of the last page, which lists the lengths of its segments."""
    tail = max(0, size - _OGG_PAGE)
    file.seek(tail)
    pages = file.read(_OGG_PAGE)
    page = pages[pages.rfind(b"OggS\0") :]
    if not page.startswith(b"OggS\0"):
        return None
    count = page[26] if len(page) > 26 else 255
    return size - len(page) + 27 + count + sum(page[27 : 27 + count])


def end_of_tags(file: BinaryIO) -> int:
    """Where the content begins behind ID3 tags, which some tools put before any format; 0 without any."""
    start = 0
    for _ in range(_MOST_BOXES):
        file.seek(start)
        head = file.read(10)
        if not head.startswith(b"ID3") or len(head) < 10:
            break
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return start


def announced_frames(file: BinaryIO) -> tuple[int, int | None]:
    """How many frames of sound an MP3's first one says that there are, 0 for unknown; and where the last one ends."""
    start = end_of_tags(file)
    file.seek(start)
    head = file.read(_HEADERS)
    info = _INFO.search(head)
    if info is None:
        return 0, None
    numbers = [int.from_bytes(head[place : place + 4], "big") for place in range(info.end(), info.end() + 16, 4)]
    if info[1] == b"VBRI":  # version, delay and quality; then bytes and frames
        length = int.from_bytes(head[info.end() + 6 : info.end() + 10], "big")
        count = int.from_bytes(head[info.end() + 10 : info.end() + 14], "big")
    else:
        count = numbers[1] if numbers[0] & 1 else 0
        length = (numbers[2] if numbers[0] & 1 else numbers[1]) if numbers[0] & 2 else 0
    if end_of_media(0, count, 0) is None:
        return 0, None
    return count, end_of_media(start + info.start(), length, 0)
