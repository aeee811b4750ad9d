"""Rows of a file that a user names, whatever its form: JSON Lines, a JSON list, or a table (CSV, TSV, `;`).

A table is read by pandas, as texts that stay as they are ("NA", "null", "01"), in the one of its engines that tells a
row that is cut short from one with empty cells. JSON is read by the standard library, an entry at a time: pandas'
reader turns ids into numbers, drops half characters and names no line.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from epalm.datasets.json_walk import place, walk_json
from epalm.datasets.text_file import HALF, reading, require_characters
from epalm.errors import UsageError

NOT_JSON = (ValueError, RecursionError)  # beside faults of form: numbers without end, brackets without end
_JSON_FILES = (".jsonl", ".json", ".ndjson")
_MAX_LINE = 1 << 20  # characters; one sample never needs more, and a file without line breaks is not JSONL
_CHUNK = 4096  # rows of a table at a time
_BREAKS = re.compile(r"\r\n?|\n")
_UNNAMED = re.compile(r"Unnamed: \d+")
_LONGER = re.compile(r"fields in line (\d+), saw")  # how pandas says it of rows that are longer by two cells and more
_INDEX = "\0"  # the name of pandas' column without one
_CUT_OFF = "the file may be cut off, or a text with a separator in it lacks its quotes"
_JSON_HINT = "write one JSON object a line, or a list of them"


class Row(NamedTuple):
    """One row: where it is, such as "line 3" or "entry 3", and its values; of a table, all of these are texts."""

    where: str
    values: dict[str, Any]
    of_table: bool = False


def read_rows(path: Path, columns: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file in its order, those without any value left out; of a table, so are empty cells.

    UTF-8 with or without BOM. A table's separator is the one of `,`, `;` and tab that its heading has most of; a first
    column without a name, which pandas writes, is left out.

    Raises:
        UsageError: unreadable, not UTF-8, of none of these forms, a table without one of `columns`, or a row that
            cannot be read, with its place.
    """
    with reading(path):
        if not path.is_file():  # opening a pipe would wait for ever
            raise UsageError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            begin = file.read(_CHUNK).lstrip()[:1]
            file.seek(0)
            if path.suffix.lower() not in _JSON_FILES and begin not in ("{", "["):
                yield from _table(path, file, columns)
                return
            if begin != "[":
                yield from _json_lines(path, file)
                return
        for section, number, value in walk_json(path):
            where = place(section, number)
            if row := _object(value, f"{path}, {where}"):
                yield Row(where, row)


def parse_json(text: str, where: str, hint: str | None = None) -> Any:
    """The value of a JSON text. Raises UsageError that begins with `where`."""
    try:
        value = json.loads(text)
    except NOT_JSON as error:
        raise UsageError(f"{where}: not JSON ({str(error)[:80]})", hint=hint) from error
    if HALF.search(text):
        require_characters(value, where)
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected an object", hint=_JSON_HINT)
    return value if any(part is not None for part in value.values()) else {}


def _json_lines(path: Path, file: TextIO) -> Iterator[Row]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise UsageError(f"{path}, line {number}: longer than {_MAX_LINE} characters; this is not JSONL")
        if not line.isspace():
            where = f"line {number}"
            if row := _object(parse_json(line, f"{path}, {where}", _JSON_HINT), f"{path}, {where}"):
                yield Row(where, row)


def _table(path: Path, file: TextIO, columns: Collection[str]) -> Iterator[Row]:
    import csv

    from pandas.errors import ParserError

    while (heading := file.readline(_MAX_LINE)).isspace():
        pass
    file.seek(0)
    lines, line = _Lines(file), 1
    names: list[str] = []
    try:
        for cells in _cells(lines, heading):
            texts = [cell for cell in cells if isinstance(cell, str)]  # what is beyond a row's end is none
            if any(texts) and not names:
                names = _names(texts, columns, f"{path}, line {line}")
            elif any(texts):
                if len(texts) != len(names):
                    fault = "more" if len(texts) > len(names) else "fewer"
                    raise UsageError(f"{path}, line {line}: {fault} cells than columns", hint=_CUT_OFF)
                row = {name: text for name, text in zip(names, texts, strict=True) if text != ""}
                row.pop(_INDEX, None)
                if "" in row:
                    raise UsageError(f"{path}, line {line}: {row['']!r} is in a column without a name")
                yield Row(f"line {line}", row, of_table=True)
            line += 1 + sum(len(_BREAKS.findall(text)) for text in texts if "\n" in text or "\r" in text)
    except (csv.Error, ParserError) as error:
        if longer := _LONGER.search(str(error)):
            raise UsageError(f"{path}, line {longer[1]}: more cells than columns", hint=_CUT_OFF) from error
        raise UsageError(f"{path}, line {lines.number}: not a table ({str(error)[:80]})") from error
    if not names:
        raise UsageError(f"{path} holds no row", hint=f"{_JSON_HINT}; or a table, with a heading")


def _cells(lines: "_Lines", heading: str) -> Iterator[tuple[Any, ...]]:
    """The cells of each row, the heading first; those beyond a row's end are no texts."""
    import pandas

    separator = max(",;\t", key=heading.count)
    width = heading.count(separator) + 2  # one more than the heading has, so that longer rows are seen to be
    chunks = pandas.read_csv(
        lines,  # type: ignore[call-overload]
        engine="python",
        sep=separator,
        header=None,
        names=range(width),
        index_col=False,
        dtype=object,
        keep_default_na=False,
        skip_blank_lines=False,
        skipinitialspace=f"{separator} " in heading,
        chunksize=_CHUNK,
    )
    for chunk in chunks:
        yield from chunk.itertuples(index=False, name=None)


def _names(texts: list[str], columns: Collection[str], where: str) -> list[str]:
    names = [text.strip() for text in texts]
    if not names[0] or _UNNAMED.fullmatch(names[0]):
        names[0] = _INDEX
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UsageError(f"{where}: there are two columns {twice!r}")
    if lacking := [column for column in columns if column not in names]:
        raise UsageError(
            f"{where}: missing column {', '.join(map(repr, lacking))}",
            hint=f"the columns there are {', '.join(map(repr, names))}"[:400],
        )
    return names


class _Lines:
    """A file line by line, counted: where the reader was when it stopped."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.number = file, 0

    def __iter__(self) -> Iterator[str]:
        return iter(self.readline, "")

    def read(self, size: int = -1) -> str:
        return self._file.read(size)

    def readline(self, size: int = -1) -> str:
        self.number += 1
        return self._file.readline(size)
