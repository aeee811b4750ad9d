"""Entries of annotation files, whose faults name file, entry or line, and key. Untrusted: every value is checked."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from epalm.datasets.rows import read_rows
from epalm.datasets.text_file import place, walk_json
from epalm.errors import UsageError

_LONGEST_TEXT = 1 << 16  # characters of a question, an answer or a caption
_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\\0-\x1f\x7f]{1,200}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Entry:
    """One entry of a JSON file or one line of a CSV, of a split."""

    __slots__ = ("file", "number", "section", "split", "value")

    def __init__(self, file: Path, split: str, section: str | None, number: int, value: Mapping[str, Any]) -> None:
        self.file, self.split, self.section, self.number, self.value = file, split, section, number, value

    def fault(self, message: str, hint: str | None = None) -> UsageError:
        """What is wrong with this entry, as an error to raise."""
        entry = f"line {self.number:,}" if self.section is None else place(self.section, self.number)
        return UsageError(f"{self.file}, {entry}: {message}", hint=hint)

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def get(self, key: str) -> Any:
        """The value of a key that has to be there."""
        value = self.value.get(key)
        if value is None:
            known = ", ".join(map(repr, list(self.value)[:12]))
            raise self.fault(f"missing key {key!r}", hint=f"the keys there are {known}"[:400] if known else None)
        return value

    def text(self, key: str) -> str:
        """A text that is not empty, without the spaces around it."""
        text = self._text(key, self.get(key))
        if not text:
            raise self.fault(f"{key!r} is empty")
        return text

    def text_or_none(self, key: str) -> str | None:
        """A text, or None where there is none."""
        return self._text(key, self.value[key]) or None if key in self else None

    def texts(self, key: str, inner: str | None = None) -> list[str]:
        """A list of texts, some of which may be empty; with `inner`, of objects that each have such a text."""
        values = self.get(key)
        if not isinstance(values, list):
            raise self.fault(f"{key!r} is {short(values)}, not a list")
        if inner is None:
            return [self._text(key, value) for value in values]
        try:
            texts = [value[inner].strip() for value in values]
        except (AttributeError, KeyError, TypeError):  # no object, no such key, or no text
            texts = []
        if not texts or len(max(texts, key=len)) > _LONGEST_TEXT:
            raise self.fault(f"{key!r} must be a list of objects with a text {inner!r} in each")
        return texts

    def choice(self, key: str, known: Mapping[str, str]) -> str:
        """What a text stands for that is one of the `known`."""
        value = self.get(key)
        if not isinstance(value, str) or value not in known:
            raise self.fault(f"{key!r} is {short(value)}, not one of {', '.join(known)}")
        return known[value]

    def name(self, key: str) -> str:
        """An id or the name of a file, without folders; numbers count as names."""
        value = self.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
            return str(value)
        if not isinstance(value, str) or not _NAME.fullmatch(value) or _URL.match(value):
            raise self.fault(f"{key!r} is {short(value)}, not a plain name")
        return value

    def path(self, key: str) -> str:
        """A path below the data root."""
        value = self.get(key)
        parts = PurePosixPath(value).parts if isinstance(value, str) else ()
        if not parts or _URL.match(value) or not all(map(_NAME.fullmatch, parts)):
            raise self.fault(f"{key!r} is {short(value)}, not a path below the data root")
        return str(PurePosixPath(*parts))

    def number_in(self, key: str, below: int) -> int:
        """A whole number from 0 on, below a bound."""
        name = self.name(key)
        if not name.isascii() or not name.isdigit() or len(name) > 19 or int(name) >= below:
            raise self.fault(f"{key!r} is {name!r}, not a number below {below:,}")
        return int(name)

    def label(self, key: str) -> dict[str, float] | None:
        """A label: a text, or answers with their scores, of which there may be none. None: no label at all."""
        label = self.value.get(key)
        if label is None or isinstance(label, str):
            return None if label is None else {self.text(key): 1.0}
        if not isinstance(label, dict):
            raise self.fault(f"{key!r} must be an answer, or answers with their scores")
        for answer, score in label.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise self.fault(f"{key!r} scores {answer[:60]!r} with {score!r}; it must be from 0 to 1")
        return {answer.strip(): float(score) for answer, score in label.items() if score and answer.strip()}

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.fault(f"{key!r} is {short(value)}, not a text")
        if len(value) > _LONGEST_TEXT:
            raise self.fault(f"{key!r} has {len(value):,} characters; {_LONGEST_TEXT:,} are read at most")
        return value.strip()


def json_entries(path: Path, split: str, *sections: str) -> Iterator[Entry]:
    """The entries of lists of these names, or of a list at the top: `""`. With none named, of every member.

    Raises:
        UsageError: a file that cannot be read, an entry that is no object, or no such list.
    """
    seen = False
    for section, number, value in walk_json(path):
        if sections and section not in sections:
            continue
        seen = True
        if not isinstance(value, dict):
            raise UsageError(f"{path}, {place(section, number)}: {short(value)} in place of an object")
        yield Entry(path, split, section, number, value)
    if not seen:
        wanted = " or ".join(f"{name!r}" if name else "a list" for name in sections) or "an entry"
        raise UsageError(f"{path} holds no entry: {wanted} is missing or empty", hint="is it the right file?")


def csv_entries(path: Path, split: str, *columns: str) -> Iterator[Entry]:
    """The lines below the heading of a CSV that has these columns.

    Raises:
        UsageError: a file that cannot be read, a column that is missing, a line of another length, or no line.
    """
    number = 0
    for where, values, _ in read_rows(path, columns):
        number = int(where.rpartition(" ")[2])
        yield Entry(path, split, None, number, values)
    if not number:
        raise UsageError(f"{path} has no line below its heading")


def short(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
