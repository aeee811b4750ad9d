"""How containers lay their parts one after the other: chunks, boxes, tags. Reads names and sizes; decodes nothing."""

from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple


class Form(NamedTuple):
    """The head of a chunk: its name, then its size, or the other way round."""

    start: int  # of the first chunk
    name: int = 4  # bytes of a name
    size: int = 4  # bytes of a size
    order: Literal["little", "big"] = "little"
    pad: int = 1  # a chunk takes a multiple of so many bytes
    inclusive: bool = False  # the size counts the head, too
    size_first: bool = False
    behind: int = 0  # bytes that follow the content: a checksum


class Chunk(NamedTuple):
    """A part of a file, as its head announces it; a `length` below 0 is an impossible one."""

    name: bytes
    place: int  # of its head
    start: int  # of its content
    length: int  # of its content
    end: int  # where the next one begins


RIFF = Form(12, pad=2)
IFF = RIFF._replace(order="big")
CAF = Form(8, size=8, order="big")
WAVE64 = Form(40, name=16, size=8, pad=8, inclusive=True)
PNG = Form(8, order="big", size_first=True, behind=4)
BOXES = Form(0, order="big", size_first=True, inclusive=True)  # of MP4, JPEG 2000 and AVIF


def walk(file: BinaryIO, form: Form, size: int, *, most: int = 1_000) -> Iterator[Chunk]:
    """The chunks of a file of `size` bytes; the last one may announce more than there is, or less than nothing."""
    place = form.start
    for _ in range(most):
        if place >= size:
            return
        file.seek(place)
        head = file.read(form.name + form.size)
        if len(head) < form.name + form.size:
            return
        if form.size_first:
            number, name = head[: form.size], head[form.size :]
        else:
            name, number = head[: form.name], head[form.name :]
        start, length = place + len(head), int.from_bytes(number, form.order)
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
