"""One line of a benchmark's table."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timing import Timing, ratio
from epalm.console import print_table


@dataclass(frozen=True)
class Line:
    """A ratio measured side by side: its median over rounds, its extremes, how many rounds, and what was measured."""

    name: str
    median: float
    lowest: float
    highest: float
    rounds: int
    note: str


def compare(name: str, slower: Timing, faster: Timing, note: str) -> Line:
    """The line of `slower / faster`, from all of their rounds."""
    return Line(name, *ratio(slower, faster), len(slower.seconds), note)


def show(title: str, lines: Sequence[Line]) -> None:
    """Print the lines as a table."""
    rows = [
        (line.name, f"{line.median:.2f}", f"{line.lowest:.2f}–{line.highest:.2f}", str(line.rounds), line.note)
        for line in lines
    ]
    columns = ("comparison", "median", "range", "rounds", "measured")
    print_table(f"{title}: medians of the rounds' ratios of wall time", columns, rows)
