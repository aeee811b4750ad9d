"""Whether a container is whole: a download that broke off must not pass for a short clip or recording.

Containers are walked for the size that they give the part with the media; an MP3's first frame may say how many
follow; Ogg's pages have checksums. Other formats (MPEG streams, ADTS …) announce nothing, and a part of them cannot be
told from a whole. Reads sizes; decodes nothing.
"""

import os
import re
import zlib
from typing import BinaryIO

from epalm.errors import MediaError
from epalm.extract.media.chunks import BOXES, CAF, IFF, RIFF, WAVE64, Form, end_of_tags, walk
from epalm.extract.media.media_warnings import warn_about
from epalm.media import Stretch, composed

_AGAIN = "download or copy it again"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")
_VITAL = (b"moov", b"mdat", b"moof")  # others may be cut: what comes behind the media is sometimes padding
_W64 = bytes.fromhex("2e91cf11a5d628db04c10000")  # behind "riff", as behind the names of the chunks
# The first frame of an MP3 that says how many there are; where depends on version and channels.
_INFO = re.compile(rb"\xff[\xe0-\xff]..(?:.{9}|.{17}|.{32})(Xing|Info|VBRI)", re.DOTALL)
_GIGABYTE = 1 << 30
_HEADERS = 1 << 16  # bytes by which a placeholder may fall short of the largest size
# Ogg: how a page begins, the bytes of its head, and where its checksum lies in that.
_PAGE, _HEAD, _CHECKSUM = b"OggS\0", 27, slice(22, 26)
_LARGEST_PAGE = _HEAD + 255 + 255 * 255  # bytes
_MOST = 10  # a damaged tenth of an Ogg file is too much of it
_BLOCK = 1 << 18  # bytes that are searched at once
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_FINAL_TAG = 128  # bytes of an ID3v1 tag, which some writers put at the end
Announced = tuple[int | None, dict[int, bytes]]  # where the media end, and what to write where if that is not known


def require_whole(file: BinaryIO, what: str) -> BinaryIO:
    """The file itself, from its beginning; one that says how long its samples are where its writer did not know.

    Warns of an Ogg file with damaged pages, which decoders leave out without a word.

    Raises:
        MediaError: the file ends before the end that it announces, or a tenth of it or more is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    end, corrections = _announced(file, head, size)
    if end is not None and end > size:
        raise MediaError(f"the {what} is cut off: it announces {end:,} bytes and has {size:,}", hint=_AGAIN)
    if head.startswith(_PAGE):
        _check_pages(file, what, size)
    file.seek(0)
    if not corrections:
        return file
    stretches, place = list[Stretch](), 0
    for start, right in sorted(corrections.items()):
        stretches += [(place, start - place), right]
        place = start + len(right)
    return composed(file, [*stretches, (place, size - place)])


def end_of_media(start: int, length: int, size: int) -> int | None:
    """Where media of `length` bytes from `start` end; None for a length that its writer did not know.

    Writers to a pipe say 0, or a round number of gigabytes but for headers. Some tools say twice what they write.
    """
    large = length > _GIGABYTE - _HEADERS and min(length % _GIGABYTE, -length % _GIGABYTE) < _HEADERS
    unknown = large or not 0 < length < 1 << 63 or length == 2 * (size - start)
    return None if unknown else start + length


def _announced(file: BinaryIO, head: bytes, size: int) -> Announced:
    """FFmpeg believes the lengths of some formats of sound, so that an unknown one is to be put right."""
    found: Announced = (None, {})
    if head.startswith(_EBML):
        found = _end_of_segment(file, size), {}
    elif head[4:8] in _BOXES:
        vital = [box.end for box in walk(file, BOXES, size) if box.name in _VITAL and box.length >= 0]
        found = max(vital, default=0), {}
    elif head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and head[8:12] in (b"AVI ", b"WAVE"):
        found = _of_riff(file, head, size)
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        end, corrections = _of_chunk(file, IFF, (b"SSND", b"BODY"), size)
        found = end, corrections and corrections | {4: _number(size - 8, 4, "big")}
    elif head[:4] == b"caff":
        found = _of_chunk(file, CAF, (b"data",), size)
    elif head == b"riff" + _W64:
        found = _of_chunk(file, WAVE64, (b"data",), size)
    elif head[:4] == b".snd":
        start, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        found = _of_samples(start, length, size, {8: _number(size - start, 4, "big")})
    elif head[:4] == b"OggS":
        found = _end_of_page(file, size), {}
    return found


def _of_samples(start: int, length: int, size: int, corrections: dict[int, bytes]) -> Announced:
    end = end_of_media(start, length, size)
    return end, corrections if end is None else {}


def _of_chunk(file: BinaryIO, form: Form, wanted: tuple[bytes, ...], size: int) -> Announced:
    """Of the chunk whose name begins with a wanted one."""
    for chunk in walk(file, form, size):
        if chunk.name.startswith(wanted):
            counted = size - (chunk.place if form.inclusive else chunk.start)
            right = {chunk.start - form.size: _number(counted, form.size, form.order)}
            return _of_samples(chunk.start, chunk.length, size, right)
    return None, {}


def _number(value: int, size: int, order: str) -> bytes:
    return min(max(0, value), (1 << 8 * size) - 1).to_bytes(size, "big" if order == "big" else "little")


def _of_riff(file: BinaryIO, head: bytes, size: int) -> Announced:
    """AVI: the end of the list of frames; the index behind it can be done without. WAVE: the end of the samples."""
    form = IFF if head.startswith(b"RIFX") else RIFF
    long, place = None, 0
    chunks = walk(file, form, size)
    for chunk in chunks:
        file.seek(chunk.start)
        begin = file.read(16)
        if chunk.name == b"ds64":  # sizes beyond 32 bits: of the file, of the samples
            long, place = int.from_bytes(begin[8:], "little"), chunk.start + 8
        if chunk.name == b"data":
            # Without a length it goes to the end of the file, but for one in which other chunks do.
            if chunk.length == 0 and any(other.end == size for other in chunks):
                raise MediaError("the recording has no samples", hint="record or download it again")
            right = {place: _number(size - chunk.start, 8, "little")} if place else {}
            return _of_samples(chunk.start, chunk.length if long is None else long, size, right)
        if chunk.name == b"LIST" and begin.startswith(b"movi"):
            known = chunk.length < 2 * _GIGABYTE - 1  # else a placeholder of a writer that never came back
            return chunk.start + chunk.length if known else None, {}
    return end_of_media(8, int.from_bytes(head[4:8], form.order), size), {}  # what it is cut before


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


def _end_of_page(file: BinaryIO, size: int) -> int | None:
    """Ogg: the end of the last page, which lists the lengths of its segments."""
    file.seek(max(0, size - _LARGEST_PAGE))
    pages = file.read(_LARGEST_PAGE)
    page = pages[pages.rfind(_PAGE) :]
    if not page.startswith(_PAGE):
        return None
    count = page[26] if len(page) > 26 else 255
    return size - len(page) + _HEAD + count + sum(page[_HEAD : _HEAD + count])


def _check_pages(file: BinaryIO, what: str, size: int) -> None:
    """Add up what lies outside of Ogg pages that fit their checksums. Raises MediaError."""
    place, damaged = 0, 0
    while place < size:
        length = _sound_page(file, place)
        if not length:
            length = _next_page(file, place + 1, size) - place
            damaged += 0 if place + length == size and length == _FINAL_TAG else length
        place += length
    if not damaged:
        return
    fault = f"{damaged:,} of its {size:,} bytes do not fit their checksums"
    if damaged * _MOST >= size:
        raise MediaError(f"the {what} is damaged: {fault}", hint=_AGAIN)
    warn_about(f"{fault}, and are left out", hint=f"play it, and {_AGAIN}")


def _sound_page(file: BinaryIO, place: int) -> int:
    """The length of the page that begins there; 0 where there is none, or a damaged one."""
    file.seek(place)
    header = file.read(_HEAD)
    if len(header) < _HEAD or not header.startswith(_PAGE):
        return 0
    lengths = file.read(header[-1])
    body = file.read(sum(lengths))
    page = header[: _CHECKSUM.start] + bytes(4) + header[_CHECKSUM.stop :] + lengths + body
    # zlib's checksum with the bits of every byte, and of the result, in the other order; it begins and ends with ones.
    reversed_sum = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return len(page) if reversed_sum.to_bytes(4, "big").translate(_REVERSED) == header[_CHECKSUM] else 0


def _next_page(file: BinaryIO, place: int, size: int) -> int:
    """Where the next page begins at `place` or behind it; the file's size where there is none."""
    while place < size:
        file.seek(place)
        block = file.read(_BLOCK)
        if (found := block.find(_PAGE)) >= 0:
            return place + found
        place += max(1, len(block) - len(_PAGE) + 1)
    return size


def announced_frames(file: BinaryIO) -> tuple[int, int | None]:
    """How many frames of sound an MP3's first one says that there are, 0 for unknown; and where the last one ends."""
    start = end_of_tags(file)
    file.seek(start)
    head = file.read(_HEADERS)
    info = _INFO.search(head)
    if info is None:
        return 0, None

    def number(place: int) -> int:
        return int.from_bytes(head[info.end() + place : info.end() + place + 4], "big")

    if info[1] == b"VBRI":  # version, delay and quality; then bytes and frames
        length, count = number(6), number(10)
    else:  # which of the two follow
        count = number(4) if number(0) & 1 else 0
        length = number(8 if number(0) & 1 else 4) if number(0) & 2 else 0
    if end_of_media(0, count, 0) is None:
        return 0, None
    return count, end_of_media(start + info.start(), length, 0)
