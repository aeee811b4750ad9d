"""Sizes of samples that a writer to a pipe did not know, put right for FFmpeg, which believes them in some formats.

Knows headers; decodes nothing.
"""

import io
import os
from typing import TYPE_CHECKING, BinaryIO

from epalm.extract.media.truncation import IFF, RIFF, W64, WAVE64, Chunks, end_of_media, walk_chunks

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Corrected(io.RawIOBase):
    """A file in which the bytes at some places are others."""

    def __init__(self, file: BinaryIO, corrections: dict[int, bytes]) -> None:
        self._file, self._corrections = file, corrections

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        first, part = self._file.tell(), memoryview(buffer)
        content = self._file.read(len(part))
        part[: len(content)] = content
        for place, correct in self._corrections.items():
            for number, value in enumerate(correct, place - first):
                if 0 <= number < len(content):
                    part[number] = value
        return len(content)


def with_known_sizes(file: BinaryIO) -> BinaryIO:
    """The file itself, or one that says how many bytes of samples there are, from its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    corrections: dict[int, bytes] = {}
    if head[:4] == b"RF64":
        corrections = _of_long(file, size)
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        corrections = _of_chunk(file, IFF, b"SSND", size)
        if corrections:
            corrections[4] = (size - 8).to_bytes(4, "big")
    elif head == b"riff" + W64:
        corrections = _of_chunk(file, WAVE64, b"data", size)
    elif head[:4] == b".snd":
        start = int.from_bytes(head[4:8], "big")
        if end_of_media(start, int.from_bytes(head[8:12], "big"), size) is None:
            corrections = {8: max(0, size - start).to_bytes(4, "big")}
    file.seek(0)
    return io.BufferedReader(_Corrected(file, corrections)) if corrections else file


def _of_chunk(file: BinaryIO, chunks: Chunks, wanted: bytes, size: int) -> dict[int, bytes]:
    """For the chunk with the samples: the place of its size, and what belongs there."""
    for name, start, length in walk_chunks(file, chunks, size):
        if name.startswith(wanted):
            counted = size - start + (chunks.name + chunks.size if chunks.inclusive else 0)
            known = end_of_media(start, length, size) is not None
            return {} if known else {start - chunks.size: counted.to_bytes(chunks.size, chunks.order)}
    return {}


def _of_long(file: BinaryIO, size: int) -> dict[int, bytes]:
    """RF64 has the sizes in a chunk of their own: of the file, of the samples."""
    place, length = 0, 0
    for name, start, _ in walk_chunks(file, RIFF, size):
        if name == b"ds64":
            file.seek(start + 8)
            place, length = start + 8, int.from_bytes(file.read(8), "little")
        if name == b"data" and place and end_of_media(start, length, size) is None:
            return {place: (size - start).to_bytes(8, "little")}
    return {}
