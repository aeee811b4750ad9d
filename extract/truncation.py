"""Whether a container ends before it says: a download that broke off must not pass for a short clip.

Matroska (and WebM), MP4 (and MOV) and AVI say in their first bytes how long their parts are. Other containers
(MPEG streams, FLV, Ogg …) do not, and a part of them cannot be told from a whole. Reads sizes; decodes nothing.
"""

import os
from typing import BinaryIO

from epalm.errors import MediaError

_MOST_BOXES = 1_000
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")
_VITAL = (b"moov", b"mdat", b"moof")  # others may be cut: what comes behind the media is sometimes padding


def require_whole(file: BinaryIO, what: str) -> None:
    """Raises MediaError when the file ends before the end that it announces; leaves the position anywhere."""
    size = file.seek(0, os.SEEK_END)
    announced = _announced(file) or 0
    if announced > size:
        raise MediaError(
            f"the {what} is cut off: it announces {announced:,} bytes and has {size:,}",
            hint="download or copy it again",
        )


def _announced(file: BinaryIO) -> int | None:
    """The file's size after its own words; None when it has none."""
    file.seek(0)
    head = file.read(12)
    if head.startswith(_EBML):
        return _end_of_segment(file)
    if head[4:8] in _BOXES:
        return _end_of_boxes(file)
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        return _end_of_movie(file)
    return None


def _end_of_segment(file: BinaryIO) -> int | None:
    """Matroska: a header, then the segment that holds all else."""
    file.seek(len(_EBML))
    header = _variable_size(file)
    if header is None:
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


def _end_of_boxes(file: BinaryIO) -> int | None:
    """MP4: boxes one after the other. The end of the last one without which the media would be incomplete."""
    end, start = None, 0
    for _ in range(_MOST_BOXES):
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


def _end_of_movie(file: BinaryIO) -> int | None:
    """AVI: chunks one after the other. The end of the list of frames; the index behind it can be done without."""
    start = 12
    for _ in range(_MOST_BOXES):
        file.seek(start)
        head = file.read(12)
        size = int.from_bytes(head[4:8], "little")
        if len(head) < 12:
            break
        if head[:4] == b"LIST" and head[8:] == b"movi":
            return start + 8 + size if size < 0x7FFFFFFF else None  # a placeholder of a writer that never came back
        start += 8 + size + size % 2
    return None
