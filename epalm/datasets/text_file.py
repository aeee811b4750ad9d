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
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # JSON's escape of what may be half of a character
_PATH_KEYS = ("id", "media")  # where a name that is not UTF-8 may stand, its bytes as Python's surrogates
_CHUNK = 1 << 22  # characters read at a time
_LONGEST = 1 << 24  # characters of one entry
_MOST_BYTES = 8 << 30  # of a file; the largest of the benchmarks' has about one GB
_ENDS = ",]} \t\n\r"  # what may follow a number
_SPACE = re.compile(r"[ \t\n\r]*")
_AGAIN = "the file may be cut off: download or unpack it again"


@contextmanager
def reading(path: Path, *, not_text: str = "save it as UTF-8") -> Iterator[None]:
    """Around opening and reading a file as UTF-8; `not_text` is what to do where it is none.

    Raises:
        UsageError: it is no file, cannot be read, or is not UTF-8.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise UsageError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
        yield
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint=not_text) from error


def parse_json(text: str, where: str, hint: str | None = None) -> Any:
    """The value of a JSON text. Raises UsageError that begins with `where`."""
    try:
        value = json.loads(text)
    except NOT_JSON as error:
        raise UsageError(f"{where}: not JSON ({str(error)[:80]})", hint=hint) from error
    if _HALF.search(text):
        require_characters(value, where)
    return value


def require_characters(value: Any, where: str) -> None:
    """Refuse text with half a character (a lone surrogate), which no file and no tokenizer takes. Raises UsageError."""
    for key, part in value.items() if isinstance(value, dict) else [("", value)]:
        try:
            key.encode()
            json.dumps(part, ensure_ascii=False).encode(errors="surrogateescape" if key in _PATH_KEYS else "strict")
        except UnicodeEncodeError as error:
            half = f"{error.object[error.start]!a}"
            named = f"{key!a} has" if key else "there is"
            raise UsageError(
                f"{where}: {named} {half}, half of a character", hint="write the character whole, or remove it"
            ) from None


def walk_json(path: Path) -> Iterator[tuple[str, int, Any]]:
    """(section, number, value) of everything one level below the top, in file order.

    Of a list at the top: ("", 1, first), ("", 2, second), … Of an object: where a member is a list, its name with each
    of its entries and their numbers from 1; any other member whole, with the number 0.

    Raises:
        UsageError: unreadable, not UTF-8, not JSON, cut off, too large, neither a list nor an object.
    """
    with reading(path, not_text=_AGAIN):
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise UsageError(f"{path} has {size:,} bytes; of annotations, {_MOST_BYTES:,} are read at most")
        with path.open(encoding="utf-8-sig") as file:
            scan = _Scanner(file, path)
            if scan.take("[{") == "[":
                yield from scan.entries("")
            else:
                for _ in scan.elements("}"):
                    if scan.next() != '"':
                        raise scan.fault("a member without a name")
                    section = scan.section = scan.value()
                    scan.take(":")
                    if scan.next() == "[":
                        scan.take("[")
                        yield from scan.entries(section)
                    else:
                        yield section, 0, scan.value()
            scan.section = ""
            if scan.next():
                raise scan.fault("something follows")


def place(section: str, number: int) -> str:
    """An entry in words: entry 3, entry 3 of 'questions', or the member 'info'."""
    if not number:
        return repr(section)
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
        found = self.next()
        if not found or found not in wanted:
            raise self.fault(f"{found!r} in place of {' or '.join(wanted)}" if found else "the file ends there")
        self._at += 1
        return found

    def elements(self, end: str) -> Iterator[int]:
        """1, 2, … as long as an element follows, for the caller to read."""
        number, ended = 0, self.next() == end
        if ended:
            self.take(end)
        while not ended:
            number += 1
            yield number
            ended = self.take("," + end) == end

    def entries(self, section: str) -> Iterator[tuple[str, int, Any]]:
        """The elements of a list, with their numbers."""
        self.section = section
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
            except json.JSONDecodeError as error:
                if self._whole:
                    raise self.fault("the file ends there" if error.pos >= len(self._text) else error.msg) from error
            except NOT_JSON as error:
                raise self.fault(str(error)[:80]) from error
            else:
                # Of a number that the window cuts, the first part is a number as well: 1 of 1.5e3.
                ended = end < len(self._text) and (type(value) not in (int, float) or self._text[end] in _ENDS)
                if ended or self._whole:
                    if _HALF.search(self._text, self._at, end):
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
