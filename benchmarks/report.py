"""One line of a benchmark's table."""

from collections.abc import Sequence
from dataclasses import dataclass

from epalm.console import print_table


@dataclass(frozen=True)
class Line:
    """A ratio measured side by side: its median over rounds, its extremes, and what it was measured on."""

    name: str
    median: float
    lowest: float
    highest: float
    note: str


def show(title: str, lines: Sequence[Line]) -> None:
    """Print the lines as a table."""
    rows = [(line.name, f"{line.median:.2f}", f"{line.lowest:.2f}–{line.highest:.2f}", line.note) for line in lines]
    print_table(f"{title}: ratios of wall time", ("comparison", "median", "range", "measured"), rows)
