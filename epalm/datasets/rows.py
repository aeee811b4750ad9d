"""Rows of a file that a user names, whatever its form: JSON Lines, a JSON list, or a table (CSV, TSV, `;`).

A table is read by pandas, as texts that stay as they are ("NA", "null", "01"), in the one of its engines that tells a
row that is cut short from one with empty cells. JSON is read by the standard library, an entry at a time: pandas'
reader turns ids into numbers, drops half characters and names no line.
"""

import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from epalm.datasets.text_file import parse_json, place, reading, walk_json
from epalm.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_JSON_FILES = (".jsonl", ".json", ".ndjson")
_MAX_LINE = 1 << 20  # characters; one sample never needs more, and a file without line breaks is not JSONL
_CHUNK = 1 << 14  # rows of a table at a time
_HEAD = 4096  # characters in which a file's form shows
_BREAK = re.compile(r"\r\n?|\n")
_UNNAMED = re.compile(r"(Unnamed: \d+)?")  # the heading of pandas' index
_LONGER = re.compile(r"fields in line (\d+), saw")  # pandas' words for rows that are longer by two cells and more
_CUT_OFF = "the file may be cut off, or a text with a separator in it lacks its quotes"
_JSON_HINT = "write one JSON object a line, or a list of them"


class Row(NamedTuple):
    """One row: where it is, such as "line 3" or "entry 3", and its values; of a table, all of these are texts."""

    where: str
    values: dict[str, Any]
    columns: tuple[str, ...] = ()  # of a table


def read_rows(path: Path, columns: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file in its order, those without any value left out; of a table, so are empty cells.

    UTF-8 with or without BOM. A table's separator is the one of `,`, `;` and tab that its heading has most of; a first
    column without a name, which pandas writes, is left out.

    Raises:
        UsageError: unreadable, not UTF-8, of none of these forms, a table without one of `columns`, or a row that
            cannot be read, with its place.
    """
    with reading(path), _Lines(path.open("rb"), encoding="utf-8-sig", newline="") as file:
        begin = file.read(_HEAD).lstrip()[:1]
        file.seek(0)
        if path.suffix.lower() not in _JSON_FILES and begin not in ("{", "["):
            yield from _table(path, file, columns)
        elif begin == "[":
            for section, number, value in walk_json(path):
                yield from _object(path, place(section, number), value)
        else:
            yield from _json_lines(path, file)


def _object(path: Path, where: str, value: Any) -> Iterator[Row]:
    if not isinstance(value, dict):
        raise UsageError(f"{path}, {where}: expected an object", hint=_JSON_HINT)
    if any(part is not None for part in value.values()):
        yield Row(where, value)


def _json_lines(path: Path, file: TextIO) -> Iterator[Row]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise UsageError(f"{path}, line {number}: longer than {_MAX_LINE} characters; this is not JSONL")
        if not line.isspace():
            where = f"line {number}"
            yield from _object(path, where, parse_json(line, f"{path}, {where}", _JSON_HINT))


class _Lines(io.TextIOWrapper):
    """A file whose lines are counted as they are read: where pandas was when it stopped."""

    number = 0

    def __next__(self) -> str:  # type: ignore[override]
        self.number += 1
        return super().__next__()


def _table(path: Path, file: _Lines, columns: Collection[str]) -> Iterator[Row]:
    from csv import Error

    from pandas.errors import ParserError

    heading = next((line for line in file if not line.isspace()), "")
    file.seek(0)
    file.number = 0
    names, heading_line = list[str](), 0
    try:
        for chunk in _cells(file, heading):
            cells = chunk[(chunk.notna() & (chunk != "")).any(axis=1)]
            if not names and len(cells):
                names = [name.strip() for name in cells.iloc[0].dropna()]
                heading_line = cells.index[0]
                _check_names(names, columns, f"{path}, line {heading_line}")
            cells = cells[cells.index != heading_line]
            widths, width = cells.notna().sum(axis=1), len(names)
            for line in widths.index[widths != width][:1]:
                fault = "more" if widths[line] > width else "fewer"
                raise UsageError(f"{path}, line {line}: {fault} cells than columns", hint=_CUT_OFF)
            first = 1 if names and _UNNAMED.fullmatch(names[0]) else 0
            header = tuple(names[first:])
            for line, *texts in cells.iloc[:, :width].itertuples(name=None):
                values = {name: text for name, text in zip(header, texts[first:], strict=True) if text != ""}
                if "" in values:
                    raise UsageError(f"{path}, line {line}: {values['']!r} is in a column without a name")
                yield Row(f"line {line}", values, header)
    except (Error, ParserError) as error:
        if longer := _LONGER.search(str(error)):
            raise UsageError(f"{path}, line {longer[1]}: more cells than columns", hint=_CUT_OFF) from error
        raise UsageError(f"{path}, line {file.number}: not a table ({str(error)[:80]})") from error
    if not names:
        raise UsageError(f"{path} holds no row", hint=f"{_JSON_HINT}; or a table, with a heading")


def _cells(lines: TextIO, heading: str) -> Iterator["pd.DataFrame"]:
    """The cells of each row, the heading first, by the line that it begins on; those beyond its end are no texts."""
    import pandas as pd

    separator = max(",;\t", key=heading.count)
    width = heading.count(separator) + 2  # one more than the heading has: a longer row shows
    chunks = pd.read_csv(
        lines,
        engine="python",
        sep=separator,
        header=None,
        names=list(range(width)),
        index_col=False,
        dtype=object,
        keep_default_na=False,
        skip_blank_lines=False,
        skipinitialspace=f"{separator} " in heading,
        chunksize=_CHUNK,
    )
    line = 1
    for cells in chunks:
        broken = [column for column in cells if _BREAK.search("".join(cells[column].dropna()))]
        breaks = cells[broken].map(lambda cell: len(_BREAK.findall(cell)), na_action="ignore")
        ends = line + (1 + breaks.sum(axis=1)).astype(int).cumsum()
        cells.index = ends.shift(fill_value=line)
        line = int(ends.max()) if len(ends) else line
        yield cells


def _check_names(names: list[str], columns: Collection[str], where: str) -> None:
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UsageError(f"{where}: there are two columns {twice!r}")
    if missing := [column for column in columns if column not in names]:
        raise UsageError(
            f"{where}: missing column {', '.join(map(repr, missing))}",
            hint=f"the columns there are {', '.join(map(repr, names))}"[:400],
        )
