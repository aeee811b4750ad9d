"""The checksums of Ogg's pages: decoders leave out a page that does not fit its own, and say nothing.

Knows pages; knows no codec.
"""

import os
import zlib
from typing import BinaryIO

from epalm.errors import MediaError
from epalm.extract.media.media_warnings import warn_about

_BEGIN, _HEADER, _CHECKSUM = b"OggS\0", 27, slice(22, 26)
_MOST = 10  # a damaged tenth of a file is too much of it
_BLOCK = 1 << 18  # bytes that are searched at once
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_FINAL_TAG = 128  # bytes of an ID3v1 tag, which some writers put at the end


def require_pages(file: BinaryIO, what: str) -> None:
    """Warns of an Ogg file with damaged pages; leaves the position anywhere, and passes over other formats.

    Raises:
        MediaError: a tenth of the file or more is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(_BEGIN)) != _BEGIN:
        return
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
        raise MediaError(f"the {what} is damaged: {fault}", hint="download or copy it again")
    warn_about(f"{fault}, and are left out", hint="play it, and download or copy it again")


def _sound_page(file: BinaryIO, place: int) -> int:
    """The length of the page that begins there; 0 where there is none, or a damaged one."""
    file.seek(place)
    header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_BEGIN):
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
        if (found := block.find(_BEGIN)) >= 0:
            return place + found
        place += max(1, len(block) - len(_BEGIN) + 1)
    return size
