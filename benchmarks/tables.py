"""`python -m benchmarks.tables PAGE GRID...`: make tables of `epalm bench` on the playground again, and put each into a
page of the documentation, between its two lines `<!-- GRID -->` and `<!-- /GRID -->`.

What is trained already is not trained again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from benchmarks.marks import markdown, replace_marked, require_marks
from epalm.cli.bench.planning import plan_grid
from epalm.cli.bench.table import make_table
from epalm.cli.bench.trainings import BenchRequest, run_trainings
from epalm.grids import load_grid


def main() -> None:
    """Make the tables that are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("page", type=Path, help="Markdown file")
    parser.add_argument("grids", nargs="+", metavar="GRID")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    arguments = parser.parse_args()
    remake(arguments.page, arguments.grids, BenchRequest(processes=arguments.processes))


def remake(page: Path, names: Sequence[str], request: BenchRequest) -> None:
    """Put the tables of these grids into a page. Raises EpalmError: it has no place for one, or a training failed."""
    grids = [load_grid(name) for name in names]
    for grid in grids:
        require_marks(page, grid.name)
    for grid in grids:
        bench = replace(request, recipe=request.recipe or grid.recipe, runs=request.runs / "bench")
        planned = plan_grid(grid, bench)
        metrics = [one.name for one in grid.measures]
        outcomes = run_trainings(dict.fromkeys(chain(*planned.values()), metrics), bench)
        replace_marked(page, grid.name, markdown(make_table(grid, bench, planned, outcomes)))


if __name__ == "__main__":
    main()
