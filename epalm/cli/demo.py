"""`epalm demo`: extract, train and score on the playground, all three modalities, then one table and the reports.

Runs the very commands that a user types, each in a process of its own, and adds nothing to them.
"""

import json
import time
from datetime import UTC, datetime
from typing import Any

import typer

from epalm.cli.grid import Cell, Features, Grid, Outcome
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption
from epalm.cli.recipe_options import PLAYGROUND
from epalm.samples import HEADLINE, Modality

_SIDES = ("perception", "blind")
_COLUMNS = (*_SIDES, "chance")
_OPTIONS = {"perception": (), "blind": ("--blind",)}
_SHOWN = 60  # samples with their media in each report


def demo(cache: CacheOption = DEFAULT_CACHE, runs: RunsOption = DEFAULT_RUNS, as_json: JsonOption = False) -> None:
    """Extract, train and score on the playground: image, video and audio, in minutes on two cores.

    Ends with QA accuracy and caption CIDEr of each modality, beside *blind* (the same training with the perceptual
    token withheld) and *chance* (the training split's most common answers and caption), and with one page for each
    modality that shows what was seen and said.

    Examples:

        epalm demo

        epalm demo --runs /tmp/runs --json
    """
    from epalm.console import print_table, say
    from epalm.figures import hundred
    from epalm.train.runs.run_folder import RunFolder

    started = time.monotonic()
    folder = runs / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    say("data: the playground, a small built-in world; all that the commands print is in " + str(folder / "logs"))
    # METEOR alone would take longer to start than to decode.
    grid = Grid(cache, folder, tuple(HEADLINE.values()), named=True)
    cells = [Cell(Features(modality), side, _OPTIONS[side], side) for side in _SIDES for modality in Modality]
    outcomes = {(cell.features.modality, cell.name): outcome for cell, outcome in grid.run(cells).items()}
    rows = [row for modality in Modality for row in _rows(modality, [outcomes[modality, side] for side in _SIDES])]
    (folder / "demo.json").write_text(json.dumps(rows, indent=2) + "\n")
    RunFolder(folder / cells[0].label).finish(runs)
    pages = {
        folder / f"report-{modality}.html": cells[place :: len(Modality)] for place, modality in enumerate(Modality)
    }
    grid.report(pages, samples=_SHOWN)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        table = [
            (r["modality"], r["task"], r["measure"], *(hundred(r[c], ".1f") for c in _COLUMNS), r["samples"])
            for r in rows
        ]
        columns = ("modality", "task", "measure", *_COLUMNS, "samples")
        print_table("playground, test split, values × 100", columns, table)
    say("look at " + ", ".join(str(page) for page in pages))
    say(f"{time.monotonic() - started:.0f} s; runs, scores and logs are in {folder}")


def _rows(modality: Modality, sides: list[Outcome]) -> list[dict[str, Any]]:
    rows = []
    for task, measure in HEADLINE.items():
        values = (*(side.figure(task) for side in sides), sides[0].figure(task, "chance"))
        figures = dict(zip(_COLUMNS, values, strict=True))
        told = {"modality": modality.value, "task": task, "measure": measure, **figures}
        rows.append(told | {"samples": sides[0].samples(task), "split": "test", "data": PLAYGROUND})
    return rows
