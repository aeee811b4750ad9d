"""What the user sees while work runs: messages, progress, tables. All but results goes to stderr."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from epalm.errors import EpalmError

screen = Console(stderr=True, highlight=False, soft_wrap=True)
_PIPE_WIDTH = 160  # characters
_READABLE = 12  # characters that a column of words has at least
_LINES_PER_RUN = 10  # progress lines printed for one piece of work when stderr is not a terminal


class Advance(Protocol):
    """Reports finished units; `note` is a short live remark such as the current loss."""

    def __call__(self, units: int = 1, *, note: str = "") -> None: ...  # noqa: D102


def silent(units: int = 1, *, note: str = "") -> None:
    """An `Advance` of work that is not shown."""


def say(message: str) -> None:
    """One line for the user; the text is printed as it is, never read as markup."""
    screen.print(Text(message))


def warn(message: str) -> None:
    """One line the user should not miss."""
    screen.print(Text.assemble(("warning: ", "bold yellow"), message))


def show_error(error: EpalmError) -> None:
    """An error as one message: what happened, then what to do."""
    screen.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.hint:
        screen.print(Text.assemble(("  → ", "bold"), error.hint))


@contextmanager
def progress(description: str, total: int, unit: str, *, done: int = 0) -> Iterator[Advance]:
    """A bar with rate and time left on a terminal, about ten plain lines elsewhere; `done` units were so before."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", style="cyan", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    bar, is_drawn, started = Progress(*columns, console=screen), screen.is_terminal, time.monotonic()
    number = bar.add_task(description, total=total, completed=done, rate=f"– {unit}/s", note="")
    task = bar.tasks[0]

    def advance(units: int = 1, *, note: str = "") -> None:
        before, now = task.completed, task.completed + units
        speed = (now - done) / max(time.monotonic() - started, 1e-9)
        rate = rate_in_words(speed, unit)
        bar.update(number, advance=units, rate=rate, note=note or task.fields["note"])
        lines = {count * _LINES_PER_RUN // max(1, total) for count in (before, now)}
        if total > 0 and len(lines) == 2 and not is_drawn:
            left, tail = time_in_words((total - now) / speed), f"  {note}" if note else ""
            say(f"{description}: {now}/{total} {unit}  {rate}  {left} left{tail}")

    with bar if is_drawn else nullcontext():  # where it is not drawn, it counts
        yield advance


def size_in_words(count: int) -> str:
    """Bytes with the unit that suits them."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:,.0f} {units[0]}" if units[0] == "B" else f"{size:,.1f} {units[0]}"


def time_in_words(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, the two that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate_in_words(speed: float, unit: str) -> str:
    """Units per second as units per second, minute or hour: the first that is one or more."""
    for per, seconds in (("s", 1), ("min", 60)):
        if speed * seconds >= 1:
            return f"{speed * seconds:,.1f} {unit}/{per}"
    return f"{speed * 3600:,.1f} {unit}/h"


def first_in_words(names: Sequence[str], shown: int, between: str = ", ") -> str:
    """The first of them, and how many there are beside."""
    return between.join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout: it is a result, not progress. In a pipe it is wide.

    The first column is text that stays in one piece, to be copied and searched for; the others are right-aligned
    figures, or words that are wrapped. Where that does not fit the width, each row becomes lines of `column: value`.
    """
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    room = console.width - 3 * len(columns) - 1
    widths = _column_widths([[column, *cells] for column, *cells in zip(columns, *rows, strict=True)], room)
    if sum(widths) > room:
        console.print(Text("\n".join([title, *_records(columns, rows)])), soft_wrap=True)
        return
    table = Table(title=Text(title, "table.title"), title_justify="left")
    for position, (column, width) in enumerate(zip(columns, widths, strict=True)):
        justify: Literal["left", "right"] = "right" if position else "left"
        table.add_column(Text(column), justify=justify, width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _column_widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Width of each column of cells, in characters; their sum is more than `room` where they cannot be read in it.

    Beside the first column, which is never wrapped, each has room for its longest word, and a few words where it has
    long texts. What is left is shared out.
    """
    whole = [max(map(cell_len, cells)) for cells in columns]
    words = [max((cell_len(word) for cell in cells for word in cell.split()), default=0) for cells in columns]
    widths = [whole[0], *(max(word, min(_READABLE, all_)) for word, all_ in zip(words[1:], whole[1:], strict=True))]
    for done, place in enumerate(sorted(range(len(columns)), key=lambda place: whole[place] - widths[place])):
        share = max(0, room - sum(widths)) // (len(columns) - done)
        widths[place] += min(share, whole[place] - widths[place])
    return widths


def _records(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Each row as lines; its first cell is their heading, or of two columns the name of the value."""
    for name, *cells in rows:
        if len(columns) <= 2:
            yield ": ".join([name, *cells])
            continue
        yield name
        yield from (
            f"  {column}: {cell}" if column else f"  {cell}"
            for column, cell in zip(columns[1:], cells, strict=True)
            if cell
        )
