"""Text files that a user names, and JSON in them entry by entry; what keeps one from being read becomes one message.

A list or object of any length is read in a window of a few MB, so that memory stays flat. Readers of events were tried:
they take memory that grows with the square of the nesting (brackets without end), and lose halves of characters.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from epalm.errors import UsageError

NOT_JSON = (ValueError, RecursionError)  # beside faults of form: numbers without end, brackets without end
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # JSON's escape of what may be half of a character
_PATH_KEYS = ("id", "media")  # where a name that is not UTF-8 may stand, its bytes as Python's surrogates
_CHUNK = 1 << 22  # characters read at a time
_LONGEST = 1 << 24  # characters of one entry
_ENDS = frozenset(":,]} \t\n\r")  # what may follow a value
_SPACE = re.compile(r"[ \t\n\r]*")
_AGAIN = "the file may be cut off: download or unpack it again"


@contextmanager
def reading(path: Path, hint: str = "save it as UTF-8") -> Iterator[None]:
    """Around reading a file. Raises UsageError: it is no file, cannot be read, or is not UTF-8, with this `hint`."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise UsageError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
        yield
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint=hint) from error


def require_characters(value: Any, where: str) -> None:
    """Refuse text with half a character (a lone surrogate), which no file and no tokenizer takes. Raises UsageError."""
    for key, part in value.items() if isinstance(value, dict) else [("", value)]:
        errors = "surrogateescape" if key in _PATH_KEYS else "strict"
        try:
            json.dumps([key, part], ensure_ascii=False).encode(errors=errors)
        except UnicodeEncodeError as error:
            what = f"{where}: {key!a} has" if key else f"{where}: there is"
            raise UsageError(
                f"{what} {error.object[error.start]!a}, half of a character",
                hint="write the character whole, or remove it",
            ) from None


def walk_json(path: Path) -> Iterator[tuple[str, int, Any]]:
    """(section, number, value) of everything one level below the top, in file order.

    Of a list at the top: ("", 1, first), ("", 2, second), … Of an object: where a member is a list, its name with each
    of its entries and their numbers from 1; any other member whole, with the number 0.

    Raises:
        UsageError: unreadable, not UTF-8, not JSON, cut off, neither a list nor an object.
    """
    with reading(path, _AGAIN), path.open(encoding="utf-8-sig") as file:
        scan = _Scanner(file, path)
        if scan.next() == "[":
            yield from scan.entries("")
        else:
            scan.take("{")
            for _ in scan.elements("}"):
                if scan.next() != '"':
                    raise scan.fault("a member without a name")
                scan.section = scan.value()
                scan.take(":")
                if scan.next() == "[":
                    yield from scan.entries(scan.section)
                else:
                    yield scan.section, 0, scan.value()
        scan.section = ""
        if scan.next():
            raise scan.fault("something follows")


def place(section: str, number: int) -> str:
    """An entry in words: entry 3, entry 3 of 'questions', or the member 'info'."""
    if not number:
        return repr(section) if section else "outside of all entries"
    return f"entry {number:,} of {section!r}" if section else f"entry {number:,}"


class _Scanner:
    """A window onto the text that moves on with what is read; `section` and `number` are of what is being read."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._whole = "", 0, False
        self._decode = json.JSONDecoder().raw_decode
        self.section, self.number = "", 0

    def next(self) -> str:
        """The next character that is no space, left where it is; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._more()

    def take(self, wanted: str) -> str:
        """The next character, which is one of `wanted`, passed over."""
        mark = self.next()
        if not mark or mark not in wanted:
            raise self.fault(f"{mark!r} in place of {' or '.join(wanted)}" if mark else "the file ends there")
        self._at += 1
        return mark

    def elements(self, end: str) -> Iterator[int]:
        """1, 2, … as long as an element follows, for the caller to read; `end` is passed over."""
        number = 0
        while self.next() != end if number == 0 else self.take("," + end) != end:
            number += 1
            yield number
        if number == 0:
            self.take(end)

    def entries(self, section: str) -> Iterator[tuple[str, int, Any]]:
        """The elements of a list, with their numbers."""
        self.take("[")
        for number in self.elements("]"):
            self.number = number
            yield section, number, self.value()
        self.number = 0

    def value(self) -> Any:
        """The next value, passed over."""
        self.next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except NOT_JSON as error:
                if self._whole or not isinstance(error, json.JSONDecodeError):
                    raise self.fault(str(getattr(error, "msg", error))[:80]) from error
            else:
                # Of a number that the window cuts, the first part is a number as well: 1 of 1.5e3.
                if self._whole or self._text[end : end + 1] in _ENDS:
                    if HALF.search(self._text, self._at, end):
                        require_characters(value, f"{self._path}, {place(self.section, self.number)}")
                    self._at = end
                    return value
            self._more()

    def fault(self, what: str) -> UsageError:
        return UsageError(f"{self._path}, {place(self.section, self.number)}: not JSON ({what})", hint=_AGAIN)

    def _more(self) -> None:
        rest = self._text[self._at :]
        if len(rest) > _LONGEST:
            raise self.fault(f"an entry of over {_LONGEST:,} characters, or a mark that is missing")
        read = self._file.read(_CHUNK)
        self._text, self._at, self._whole = rest + read, 0, not read
