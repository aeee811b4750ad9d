"""Listings: a pandas DataFrame printed as a table for people, or as CSV, JSON or Parquet for programs."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from epalm.console import print_table, say
from epalm.errors import UsageError
from epalm.request_fields import option

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]  # a row of a frame: plain Python values by column, None where there is none


class Format(StrEnum):
    """How a listing is printed on stdout."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Listing:
    """The options of a command that prints a listing."""

    format: Format = option(
        "How the listing is printed on stdout; parquet, which is binary, only into a file or a pipe.", Format.TABLE
    )
    as_json: bool = False

    @property
    def form(self) -> Format:
        """The format that is asked for: --json is --format json."""
        return Format.JSON if self.as_json else self.format


def show_listing(
    frame: "pd.DataFrame | Sequence[Record]",
    form: Format,
    *,
    title: str,
    cells: Callable[[Record], Mapping[str, str]] | None = None,
    empty: str,
    columns: list[str] | None = None,
    notes: Sequence[str] = (),
    as_json: Any = None,
) -> None:
    """Print a frame, or records with these `columns` [default: all that they have].

    For `table` each record becomes the `cells` of a row, by heading [its values]; notes go to stderr. `empty` is the
    message, on stderr, in place of a table without rows. CSV and Parquet have the frame's columns, and so have the
    objects of JSON, unless `as_json` is what it prints.

    Raises:
        UsageError: Parquet is asked for on a terminal, or without pyarrow.
    """
    if form is Format.JSON and as_json is not None:
        typer.echo(json.dumps(as_json))
        return
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        frame = pd.DataFrame(frame, columns=columns, dtype=object)  # names of runs and media need not be UTF-8
    if form is not Format.TABLE:
        write_listing(frame, form)
        return
    rows = [(cells or _plain_cells)(record) for record in records_of(frame)]
    if rows:
        print_table(title, list(rows[0]), [list(row.values()) for row in rows])
    for note in notes if rows else [empty, *notes]:
        say(note)


def show_values(values: Mapping[str, str], form: Format, *, title: str, as_json: Any = None) -> None:
    """Print values, each with its name, as `show_listing` does."""
    rows = [{"name": name, "value": value} for name, value in values.items()]
    show_listing(rows, form, title=title, empty="", as_json=as_json)


def _plain_cells(record: Record) -> dict[str, str]:
    return {name: " ".join(value) if isinstance(value, list) else str(value or "") for name, value in record.items()}


def records_of(frame: "pd.DataFrame") -> list[Record]:
    """The rows of a frame as plain Python values; missing ones (NaN, NA, NaT) are None."""
    plain = frame.astype(object)
    records: list[Record] = plain.where(plain.notna(), None).to_dict("records")  # type: ignore[assignment]
    return records


def write_listing(frame: "pd.DataFrame", form: Format) -> None:
    """Write a frame to stdout as CSV, JSON or Parquet. Raises UsageError as `show_listing`."""
    if form is Format.JSON:
        typer.echo(json.dumps(records_of(frame), default=str))
        return
    flat = frame.copy()
    for column in flat.select_dtypes("object"):  # values that are no plain cell
        flat[column] = [
            json.dumps(value) if isinstance(value, dict | list | tuple) else value for value in flat[column]
        ]
    if form is Format.CSV:
        typer.echo(flat.to_csv(index=False), nl=False)
        return
    if sys.stdout.isatty():
        raise UsageError("Parquet is binary, and stdout is a terminal", hint="add > listing.parquet, or --format csv")
    try:
        data = flat.to_parquet(index=False)
    except ImportError as error:
        raise UsageError("--format parquet needs pyarrow", hint="pip install 'epalm[parquet]'") from error
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
