"""What `epalm ablate --plan` prints: trainings to do, those done, and how long the rest takes, told from the latter."""

import json
from collections.abc import Sequence
from typing import Any

import typer

from epalm.cli.ablation import Ablation
from epalm.cli.grid import Cell, Grid, Outcome
from epalm.console import print_table, say, time_in_words


def show_plan(tables: Sequence[Ablation], grid: Grid, as_json: bool) -> None:
    """Print the plan of some tables; a training that several have counts once."""
    of_tables: dict[Cell, list[str]] = {}
    for table in tables:
        for cell in table.cells:
            names = of_tables.setdefault(cell, [])
            names += [table.name] if table.name not in names else []
    done = {cell: grid.done(cell) for cell in of_tables}
    told = [_told(cell, names, done[cell]) for cell, names in of_tables.items()]
    left = [row["steps"] for row in told if not row["done"]]
    seconds = _seconds([outcome for outcome in done.values() if outcome], left)
    if as_json:
        typer.echo(json.dumps({"trainings": told, "seconds": seconds}))
        return
    rows = [
        (
            ", ".join(row["tables"]),
            row["modality"],
            " ".join(row["settings"]),
            " ".join(row["extract"]) or ("in the loop" if row["in_loop"] else "as usual"),
            "all" if row["steps"] is None else f"{row['steps']:,}",
            "done" if row["done"] else "to do",
        )
        for row in told
    ]
    print_table("trainings", ("table", "media", "settings", "features", "steps", ""), rows)
    say(f"{len(told)} trainings, {len(told) - len(left)} of them done; a done one is looked at again, and not trained")
    if seconds is not None and left:
        say(f"the others take about {time_in_words(seconds)} one after the other, told from those done here")


def _told(cell: Cell, tables: Sequence[str], outcome: Outcome | None) -> dict[str, Any]:
    return {
        "tables": list(tables),
        "modality": cell.features.modality.value,
        "settings": [word for word in cell.words if word != "--set"],
        "extract": list(cell.features.words),
        "in_loop": cell.in_loop,
        "steps": json.loads(cell.decides)["optim"]["max_steps"],
        "done": outcome is not None,
    }


def _seconds(done: Sequence[Outcome], left: Sequence[int | None]) -> float | None:
    """Of training steps, at the rate of those done; None where nothing was done, or it is not known how many."""
    steps = sum(outcome.trained["steps"] for outcome in done)
    if not steps or None in left:
        return None
    rate: float = sum(outcome.trained["seconds"] for outcome in done) / steps
    return rate * sum(count for count in left if count is not None)
