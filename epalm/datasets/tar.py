"""The members of an uncompressed tar from its headers alone: their names, kinds, and where their bytes lie.

Knows the tar formats (v7, ustar, GNU, pax), not what members are for. Unpacks nothing, follows no link and reads no
member's bytes. Unlike the standard library's reader it never takes a damaged header for the end of the archive, and
neither keeps a list of members nor reads headers of any length into memory.
"""

import os
import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import BinaryIO, NamedTuple

from epalm.errors import UsageError

_BLOCK = 512  # bytes: headers fill one, and members begin on one
_ZEROS = bytes(_BLOCK)  # marks the end
_MOST_EXTENDED = 1 << 20  # bytes of an extended header, which holds a path and a few words
_MOST_PADDING = 1 << 20  # bytes of zeros behind the end: writers fill up to 10 KB, few of them more
_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")  # of a pax header: "LENGTH key=value\n"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_AGAIN = "download or copy the shard again"
_REPACK = "unpack the shard and pack it again, with: tar --format=pax -cf SHARD.tar FILES"


class Kind(Enum):
    """What a member is; only files have bytes."""

    FILE = auto()
    FOLDER = auto()
    LINK = auto()
    DEVICE = auto()
    UNKNOWN = auto()


_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"1": Kind.LINK, b"2": Kind.LINK,
    b"3": Kind.DEVICE, b"4": Kind.DEVICE, b"5": Kind.FOLDER, b"6": Kind.DEVICE,
}  # fmt: skip
_WITHOUT_BYTES = (Kind.LINK, Kind.FOLDER, Kind.DEVICE)  # nothing follows their headers, whatever size they give
_EXTENDED = (b"x", b"X", b"g", b"L", b"K")  # headers that say more about the next member, or (g) all that follow
_SPARSE = b"S"


class Member(NamedTuple):
    """One member, whose `size` bytes begin at byte `offset`; bytes of its name that are not UTF-8 are surrogates."""

    name: str
    kind: Kind
    offset: int
    size: int


class _Header(NamedTuple):
    name: bytes
    type: bytes
    size: int
    where: str  # for messages


def read_members(file: BinaryIO, shard: str) -> Iterator[Member]:
    """All members of the tar `file`, in its order; between two of them the file may be read from anywhere.

    `shard` is its name in messages.

    Raises:
        UsageError: no tar, compressed, cut off, damaged, with a sparse member, or with bytes behind its end.
        OSError: from reading.
    """
    length = file.seek(0, os.SEEK_END)
    offset = 0
    for_all, for_next = dict[bytes, bytes](), dict[bytes, bytes]()
    while True:
        file.seek(offset)
        block = file.read(_BLOCK)
        where = f"{shard}, byte {offset:,}"
        if offset == 0:
            _refuse_compressed(block, shard)
        if len(block) < _BLOCK:
            raise UsageError(f"{where}: cut off, the mark that ends a tar is missing", hint=_AGAIN)
        if block == _ZEROS:
            _check_end(file.read(min(length, _MOST_PADDING)), length - offset, where)
            return
        header = _parse(block, where)
        extended = header.type in _EXTENDED
        attributes = {} if extended else {**for_all, **for_next}
        size = header.size if extended else _size(header, attributes)
        start = offset + _BLOCK
        if start + size > length:
            raise UsageError(f"{where}: cut off, {size:,} bytes should follow this header", hint=_AGAIN)
        offset = start + -(-size // _BLOCK) * _BLOCK
        if extended:
            (for_all if header.type == b"g" else for_next).update(_attributes(file, header))
        else:
            yield _member(header, attributes, start, size)
            for_next = {}


def _parse(block: bytes, where: str) -> _Header:
    name, kind = block[:100].split(b"\0", 1)[0], block[156:157]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    size = _number(block[124:136])
    if _number(block[148:156]) != _checksum(block):
        raise UsageError(f"{where}: no tar header there, or a damaged one", hint=_AGAIN)
    if size is None:
        raise UsageError(f"{where}: the header gives no possible size", hint=_AGAIN)
    return _Header(name, kind, size, where)


def _checksum(block: bytes) -> int:
    """The sum of the header's bytes, those of the checksum itself taken for spaces."""
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int | None:
    """Octal digits, or GNU's binary form for what does not fit; None when it is neither, or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    try:
        return int(digits, 8) if digits.isdigit() else None if digits else 0
    except ValueError:  # an 8 or a 9
        return None


def _size(header: _Header, attributes: Mapping[bytes, bytes]) -> int:
    """Bytes that follow a member's header."""
    if _KINDS.get(header.type) in _WITHOUT_BYTES:
        return 0
    told = attributes.get(b"size")
    if not told:
        return header.size
    if not told.isdigit() or len(told) > 19:
        raise UsageError(f"{header.where}: the extended header gives no possible size", hint=_AGAIN)
    return int(told)


def _attributes(file: BinaryIO, header: _Header) -> dict[bytes, bytes]:
    """What an extended header says; the file stands at its first byte."""
    if header.size > _MOST_EXTENDED:
        raise UsageError(f"{header.where}: an extended header of {header.size:,} bytes", hint=_REPACK)
    data = file.read(header.size)
    if header.type == b"L":
        return {b"path": data.split(b"\0", 1)[0]}
    if header.type == b"K":  # where a link leads
        return {}
    attributes, at = {}, 0
    while at < len(data) and data[at]:
        record = _RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise UsageError(f"{header.where}: the extended header is damaged", hint=_AGAIN)
        attributes[record[2]] = data[record.end() : end - 1]
        at = end
    return attributes


def _member(header: _Header, attributes: Mapping[bytes, bytes], start: int, size: int) -> Member:
    if header.type == _SPARSE or any(key.startswith(b"GNU.sparse.") for key in attributes):
        raise UsageError(f"{header.where}: a sparse member, whose bytes are not all in the shard", hint=_REPACK)
    name = attributes.get(b"path") or header.name
    kind = _KINDS.get(header.type, Kind.UNKNOWN)
    if kind is Kind.FILE and name.endswith(b"/"):  # how tars older than the standard write a folder
        kind = Kind.FOLDER
    return Member(name.decode("utf-8", "surrogateescape"), kind, start, size)


def _check_end(rest: bytes, left: int, where: str) -> None:
    """Tars that were appended to each other go on behind the first one's end, where no tar reader looks."""
    if rest.strip(b"\0") or left > len(rest) + _BLOCK:
        raise UsageError(
            f"{where}: the tar ends, the shard goes on for {left:,} bytes",
            hint="if shards were appended to each other with cat, keep them apart, or join them with tar -A",
        )


def _refuse_compressed(block: bytes, shard: str) -> None:
    for magic, form in _COMPRESSED.items():
        if block.startswith(magic):
            raise UsageError(
                f"{shard} is compressed ({form}): media in it cannot be read in place",
                hint=f"unpack the shard, not its members: {form} -dc {shard} > SHARD.tar",
            )
