"""Entries of data files in any form (JSON, JSON Lines, tables), whose faults name file, place and key.

A table is read by pandas, as texts that stay as they are ("NA", "null", "01"), in the one of its engines that tells a
row that is cut short from one with empty cells. JSON is read by the standard library, an entry at a time: pandas'
reader turns ids into numbers, drops half characters and names no line.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from epalm.datasets.text_file import HALF, NOT_JSON, place, reading, require_characters, walk_json
from epalm.errors import UsageError

_NAME = re.compile(r"(?!\.{1,2}\Z|[A-Za-z][A-Za-z0-9+.-]*:)[^/\\\0-\x1f\x7f]{1,200}")  # no URL either
_JSON_FILES = (".jsonl", ".json", ".ndjson")
_HEAD = 4096  # characters in which a file's form shows
_UNNAMED = re.compile(r"(Unnamed: \d+)?")  # the heading of pandas' index
_CUT_OFF = "the file may be cut off, or a text with a separator in it lacks its quotes"
_JSON_HINT = "write one JSON object a line, or a list of them"
LISTS = {  # how a user writes them
    "answers": '{"cat": 1.0}',
    "raw_answers": '["a cat", "a black cat"]',
    "references": '["a cat", "a black cat"]',
}
Known = TypeVar("Known")


@dataclass(slots=True)
class Entry:
    """One entry of a JSON file, one line of JSON Lines, or one row of a table, which has texts alone. Untrusted.

    `section` is the list or member that it is in: "" at the top, None in a file of lines or rows. `columns` are all of
    a table's. Each method checks a value; it raises UsageError.
    """

    file: Path
    section: str | None
    number: int
    values: dict[str, Any]
    split: str = ""
    columns: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Its place in the file."""
        if self.section is None:
            return f"{'row' if self.columns else 'line'} {self.number:,}"
        return place(self.section, self.number)

    def fault(self, message: str, hint: str | None = None) -> UsageError:
        """What is wrong with this entry, as an error to raise."""
        return UsageError(f"{self.file}, {self.where}: {message}", hint=hint)

    def parsed(self, text: str) -> Any:
        """The value of a JSON text."""
        try:
            value = json.loads(text)
        except NOT_JSON as error:
            raise self.fault(f"not JSON ({str(error)[:80]})", _JSON_HINT) from error
        if HALF.search(text):
            require_characters(value, f"{self.file}, {self.where}")
        return value

    def object(self, value: Any) -> dict[str, Any]:
        """A value that has to be an object."""
        if not isinstance(value, dict):
            raise self.fault(f"{short(value)} in place of an object", _JSON_HINT)
        return value

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str) -> Any:
        """The value of a key that has to be there."""
        value = self.values.get(key)
        if value is None:
            known = ", ".join(map(repr, list(self.values)[:12]))
            raise self.fault(f"missing key {key!r}", hint=f"the keys there are {known}"[:400])
        return value

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self.fault(f"{key!r} is {short(value)}, not a text")
        if not value or value.isspace():
            raise self.fault(f"{key!r} is empty")
        return value

    def text_or_none(self, key: str) -> str | None:
        """A text, or None where there is none."""
        return None if self.values.get(key) in (None, "") else self.text(key)

    def texts(self, key: str, inner: str | None = None) -> list[str]:
        """A list of texts, some of which may be empty; with `inner`, of one or more objects that have such a text."""
        values = self.get(key)
        try:
            texts = values if inner is None else [value[inner] for value in values]
            "".join(texts)  # fails where one is no text
        except (KeyError, TypeError):
            texts = None
        if not isinstance(values, list) or texts is None or (inner and not texts):
            of = f"objects with a text {inner!r} in each" if inner else "texts"
            raise self.fault(f"{key!r} must be a list of {of}, not {short(values)}", LISTS.get(key))
        return texts

    def choice(self, key: str, known: Mapping[str, Known]) -> Known:
        """What a text stands for that is one of the `known`."""
        value = self.get(key)
        if not isinstance(value, str) or value not in known:
            raise self.fault(f"{key!r} is {short(value)}, not one of {', '.join(known)}")
        return known[value]

    def name(self, key: str) -> str:
        """An id or the name of a file, without folders; whole numbers count as names."""
        value = self.get(key)
        name = str(value) if type(value) is int else value
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self.fault(f"{key!r} is {short(value)}, not a plain name")
        return name

    def number_in(self, key: str, below: int) -> int:
        """A whole number from 0 on, below a bound."""
        name = self.name(key)
        if not name.isascii() or not name.isdigit() or int(name) >= below:
            raise self.fault(f"{key!r} is {name!r}, not a number below {below:,}")
        return int(name)

    def scores(self, key: str) -> dict[str, float] | None:
        """An answer, or answers with their scores in [0, 1], of which there may be none. None: no such key at all."""
        answers = self.values.get(key)
        if answers is None or isinstance(answers, str):
            return None if answers is None else {self.text(key): 1.0}
        if not isinstance(answers, dict):
            raise self.fault(f"{key!r} must be an answer, or answers with their scores", LISTS["answers"])
        for answer, score in answers.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise self.fault(f"{key!r} scores {answer[:60]!r} with {score!r}; it must be from 0 to 1")
        return {answer: score for answer, score in answers.items() if score}


def json_entries(path: Path, split: str, *sections: str) -> Iterator[Entry]:
    """The entries of lists of these names, or of a list at the top: `""`. With none named, of every member.

    Raises:
        UsageError: a file that cannot be read, an entry that is no object, or no such list.
    """
    seen = False
    for section, number, value in walk_json(path):
        if not sections or section in sections:
            seen = True
            entry = Entry(path, section, number, value, split)
            entry.object(value)
            yield entry
    if not seen:
        wanted = " or ".join(f"{name!r}" if name else "a list" for name in sections) or "an entry"
        raise UsageError(f"{path} holds no entry: {wanted} is missing or empty", hint="is it the right file?")


def read_rows(path: Path, split: str = "") -> Iterator[Entry]:
    """The rows of a file in its order, whatever its form: JSON Lines, a JSON list, or a table (CSV, TSV, `;`).

    UTF-8 with or without BOM. Rows without any value are left out, and so are empty cells of a table. Its separator is
    the one of `,`, `;` and tab that its heading has most of; a first column without a name, as of pandas, is left out.

    Raises:
        UsageError: unreadable, not UTF-8, of none of these forms, without rows, or a row that cannot be read.
    """
    with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        begin = file.read(_HEAD).lstrip()[:1]
        file.seek(0)
        if path.suffix.lower() not in _JSON_FILES and begin not in ("{", "["):
            yield from _table(path, split, file)
        else:
            entries = json_entries(path, split, "") if begin == "[" else _json_lines(path, split, file)
            yield from (entry for entry in entries if any(value is not None for value in entry.values.values()))


def _json_lines(path: Path, split: str, file: TextIO) -> Iterator[Entry]:
    for number, line in enumerate(file, 1):
        if not line.isspace():
            entry = Entry(path, None, number, {}, split)
            entry.values = entry.object(entry.parsed(line))
            yield entry


def _table(path: Path, split: str, file: TextIO) -> Iterator[Entry]:
    import csv

    import pandas as pd

    heading = next((line for line in file if not line.isspace()), "")
    file.seek(0)
    separator = max(",;\t", key=heading.count)
    try:
        cells = pd.read_csv(
            file,
            engine="python",
            sep=separator,
            header=None,
            names=list(range(heading.count(separator) + 2)),  # one more than the heading has: a longer row shows
            index_col=False,
            dtype=object,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=f"{separator} " in heading,
        )
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UsageError(f"{path}: not a table ({str(error)[:80]})", hint=_CUT_OFF) from error
    cells.index += 1
    cells = cells[cells.apply(lambda column: column.str.strip().fillna("") != "").any(axis=1)]
    if len(cells) < 2:
        raise UsageError(f"{path} holds no row below a heading", hint=f"{_JSON_HINT}; or a table, with a heading")
    names = [name.strip() for name in cells.iloc[0].dropna()]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UsageError(f"{path}, row {cells.index[0]}: there are two columns {twice!r}")
    widths, width = cells.notna().sum(axis=1), len(names)
    for row in widths.index[widths != width][:1]:
        fault = "more" if widths[row] > width else "fewer"
        raise UsageError(f"{path}, row {row}: {fault} cells than columns", hint=_CUT_OFF)
    first = 1 if _UNNAMED.fullmatch(names[0]) else 0
    header = tuple(names[first:])
    for row, *texts in cells.iloc[1:, first:width].itertuples(name=None):
        values = {name: text for name, text in zip(header, texts, strict=True) if text != ""}
        yield Entry(path, None, row, values, split, header)


def short(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
