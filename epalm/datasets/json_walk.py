"""A large JSON file entry by entry: memory stays flat however large the file is, and a fault names its entry."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from epalm.datasets.text_file import HALF, reading, require_characters
from epalm.errors import UsageError

_CHUNK = 1 << 22  # characters read at a time
_LONGEST = 1 << 24  # characters of one entry
_MOST_BYTES = 8 << 30  # of a file; the largest of the benchmarks' has about one GB
_ENDS = ",]} \t\n\r"  # what may follow a number
_SPACE = re.compile(r"[ \t\n\r]*")
_AGAIN = "the file may be cut off: download or unpack it again"


def walk_json(path: Path) -> Iterator[tuple[str, int, Any]]:
    """(section, number, value) of everything one level below the top, in file order.

    Of a list at the top: ("", 1, first), ("", 2, second), … Of an object: where a member is a list, its name with each
    of its entries and their numbers from 1; any other member whole, with the number 0.

    Raises:
        UsageError: unreadable, not UTF-8, not JSON, cut off, too large, neither a list nor an object.
    """
    with reading(path, not_text=_AGAIN):
        if not path.is_file():  # opening a pipe would wait for ever
            raise UsageError(f"{path} is not a file")
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise UsageError(f"{path} has {size:,} bytes; of annotations, {_MOST_BYTES:,} are read at most")
        with path.open(encoding="utf-8-sig") as file:
            yield from _walk(_Scanner(file, path))


def place(section: str, number: int) -> str:
    """An entry in words: entry 3, entry 3 of 'questions', or the member 'info'."""
    if not number:
        return repr(section)
    return f"entry {number:,} of {section!r}" if section else f"entry {number:,}"


class _Scanner:
    """A window onto the text that moves on with what is read."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._whole = "", 0, False
        self._decode = json.JSONDecoder().raw_decode
        self.section, self.number = "", 0  # of what is being read; before the first, and after the last, neither

    def next(self) -> str:
        """The next character that is no space, left where it is; empty at the end."""
        while True:
            found = self._text[self._at : self._at + 1]
            if found and not found.isspace():
                return found
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._more()

    def take(self, wanted: str) -> str:
        """The next character, which is one of `wanted`, passed over."""
        found = self.next()
        if not found or found not in wanted:
            raise self.fault(f"{found!r} in place of {' or '.join(wanted)}" if found else "the file ends there")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, passed over."""
        self.next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._whole:
                    raise self.fault("the file ends there" if error.pos >= len(self._text) else error.msg) from error
            except (ValueError, RecursionError) as error:  # numbers without end, brackets without end
                raise self.fault(str(error)[:80]) from error
            else:
                # Of a number that the window cuts, the first part is a number as well: 1 of 1.5e3.
                ended = end < len(self._text) and (type(value) not in (int, float) or self._text[end] in _ENDS)
                if ended or self._whole:
                    if HALF.search(self._text, self._at, end):
                        require_characters(value, f"{self._path}, {self._place()}")
                    self._at = end
                    return value
            self._more()

    def fault(self, what: str) -> UsageError:
        return UsageError(f"{self._path}, {self._place()}: not JSON ({what})", hint=_AGAIN)

    def _place(self) -> str:
        return place(self.section, self.number) if self.section or self.number else "outside of all entries"

    def _more(self) -> None:
        rest = self._text[self._at :]
        if len(rest) > _LONGEST:
            raise self.fault(f"an entry of over {_LONGEST:,} characters, or a mark that is missing")
        read = self._file.read(_CHUNK)
        self._text, self._at, self._whole = rest + read, 0, not read


def _walk(scan: _Scanner) -> Iterator[tuple[str, int, Any]]:
    if scan.take("[{") == "[":
        yield from _entries(scan, "")
    else:
        while scan.next() != "}":
            section = scan.value()
            if not isinstance(section, str):
                raise scan.fault("a member without a name")
            scan.section = section
            scan.take(":")
            if scan.next() == "[":
                scan.take("[")
                yield from _entries(scan, section)
            else:
                yield section, 0, scan.value()
            if scan.next() != "}":
                scan.take(",")
        scan.take("}")
    scan.section, scan.number = "", 0
    if scan.next():
        raise scan.fault("something follows")


def _entries(scan: _Scanner, section: str) -> Iterator[tuple[str, int, Any]]:
    number = 0
    while scan.next() != "]":
        number += 1
        scan.number = number
        yield section, number, scan.value()
        if scan.next() != "]":
            scan.take(",")
    scan.take("]")
    scan.number = 0
