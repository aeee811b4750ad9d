"""The members of an uncompressed tar shard, from its headers alone; unpacks nothing and reads no member's bytes.

The headers are parsed by the standard library, one by one: its own walk takes a damaged header for the end of the
archive, keeps every member in memory, and reads extended headers of any length.
"""

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from epalm.errors import UsageError

_ZEROS = bytes(tarfile.BLOCKSIZE)  # marks the end
_MOST_EXTENDED = 1 << 20  # bytes of an extended header, which holds a path and a few words
_MOST_PADDING = 1 << 20  # bytes of zeros after the end: writers fill up to 10 KB, few of them more
_PAX = (b"x", b"X", b"g")
_EXTENDED = (*_PAX, b"L", b"K")  # headers that say more about the next member, or (g) all that follow
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_AGAIN = "download or copy the shard again"
_REPACK = "unpack the shard and pack it again, with: tar --format=pax -cf SHARD.tar FILES"
_FAULTS = (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError)  # what forged headers raise


class _Shard:
    """What the parser reads from: headers, and bodies of extended headers, which are checked."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.seek, self.tell = file.seek, file.tell
        self.length = file.seek(0, os.SEEK_END)
        self.extends = b""  # the type of the extended header whose body is read next
        file.seek(0)

    def read(self, size: int) -> bytes:
        at = self._file.tell()
        if not 0 < size <= _MOST_EXTENDED:
            what = f"an extended header of {size:,} bytes" if size > 0 else "the header gives no possible size"
            raise self.fault(at, what, _REPACK)
        data = self._file.read(size)
        if len(data) < size:
            raise self.fault(at, "cut off, the shard ends there", _AGAIN)
        if self.extends in _PAX and not _are_records(data.rstrip(b"\0")):
            raise self.fault(at, "the extended header is damaged", _AGAIN)
        self.extends = data[156:157] if not self.extends and data[156:157] in _EXTENDED else b""
        return data

    def fault(self, at: int, what: str, hint: str) -> UsageError:
        return UsageError(f"{self._name}, byte {at:,}: {what}", hint=hint)


def _are_records(data: bytes) -> bool:
    """Whether it is lines "LENGTH key=value", each of its length: some versions of the library skip any others."""
    at = 0
    while at < len(data):
        digits = data[at : at + 8].partition(b" ")[0]
        end = at + int(digits) if digits.isdigit() else 0
        if not at < end <= len(data) or data[end - 1 : end] != b"\n":
            return False
        at = end
    return True


def read_members(file: BinaryIO, shard: str) -> Iterator[tarfile.TarInfo]:
    """All members of the tar `file`, in its order; between two of them the file may be read from anywhere.

    `shard` is its name in messages. A member's bytes are `size` from `offset_data` on; bytes of names that are not
    UTF-8 are surrogates.

    Raises:
        UsageError: no tar, compressed, cut off, damaged, with a sparse member, or with bytes after its end.
        OSError: from reading.
    """
    source = _Shard(file, shard)
    _refuse_compressed(file.read(len(_ZEROS)), shard)
    # Opened for writing it does nothing by itself, while for reading it would walk to the first member.
    tar = tarfile.TarFile(fileobj=source, mode="x", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    at = 0
    while True:
        file.seek(at)
        if (block := file.read(len(_ZEROS))) == _ZEROS:
            _require_end(file, source, at)
            return
        tar.offset = file.seek(at)
        source.extends = b""
        try:
            member = tarfile.TarInfo.fromtarfile(tar)
        except _FAULTS as error:
            raise source.fault(at, f"no tar header there, or a damaged one ({error})", _AGAIN) from error
        if member.size < 0 or not member.pax_headers.get("size", "0").isdigit():
            raise source.fault(at, "the header gives no possible size", _AGAIN)
        if member.issparse() or block[156:157] == tarfile.GNUTYPE_SPARSE:
            raise source.fault(at, "a sparse member, whose bytes are not all in the shard", _REPACK)
        if tar.offset > source.length:
            raise source.fault(at, f"cut off, {member.size:,} bytes should follow this header", _AGAIN)
        at = tar.offset
        yield member


def _require_end(file: BinaryIO, source: _Shard, at: int) -> None:
    """Tars that were appended to each other go on after the first one's end, where no tar reader looks."""
    left = source.length - at
    rest = file.read(_MOST_PADDING)
    if rest.strip(b"\0") or left > len(rest) + len(_ZEROS):
        raise source.fault(
            at,
            f"the tar ends, the shard goes on for {left:,} bytes",
            "if shards were appended to each other with cat, keep them apart, or join them with tar -A",
        )


def _refuse_compressed(block: bytes, shard: str) -> None:
    for magic, form in _COMPRESSED.items():
        if block.startswith(magic):
            raise UsageError(
                f"{shard} is compressed ({form}): media in it cannot be read in place",
                hint=f"unpack the shard, not its members: {form} -dc {shard} > SHARD.tar",
            )
