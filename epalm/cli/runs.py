"""`epalm runs`: what was trained, what is being trained, what was stopped; and what two runs differ in."""

import json
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.options import DEFAULT_RUNS, JsonOption, RunsOption
from epalm.cli.tables import Format, FormatOption, Record, show_listing


def runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="A run to look at closely, or two to compare.", show_default=False)
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the runs: done, running, stopped at a step, or damaged; with the best validation and the scores.

    With a name, all that is known of that run; with two, what differs between them.

    Examples:

        epalm runs

        epalm runs --format csv > runs.csv

        epalm runs my-run --json

        epalm runs one other
    """
    from epalm.errors import UsageError
    from epalm.train.runs.listing import runs_frame

    if names and len(names) > 2:
        raise UsageError(f"{len(names)} runs are named", hint="name one to look at it, two to compare them")
    if names:
        _show_two(runs, names, as_json) if len(names) == 2 else _show_one(runs, names[0], as_json)
        return
    frame = runs_frame(runs)
    faults = frame[frame["fault"].notna()]
    show_listing(
        frame,
        Format.JSON if as_json else form,
        title=f"runs in {runs}",
        cells=_cells,
        empty=f"there is no run in {runs}; epalm train --from-cache makes one",
        notes=[f"{name}: {fault}" for name, fault in zip(faults["name"], faults["fault"], strict=True)],
    )


def _cells(one: Record) -> dict[str, str]:
    from epalm.figures import headline_in_words

    step, steps = one["step"], one["steps"]
    best = "" if one["val_loss"] is None else f"{one['val_loss']:.3f} nats"
    best += "" if one["val_exact"] is None else f", exact {one['val_exact']:.3f}"
    of = "" if one["val_of"] is None else f" of {one['val_of']:,}"
    best += "" if one["val_samples"] is None else f" ({one['val_samples']:,}{of} samples)"
    return {
        "run": one["name"],
        "state": f"stopped at step {step or 0:,}" if one["state"] == "stopped" else one["state"],
        "modality": one["modality"] or "",
        "recipe": one["recipe"] or "",
        "variant": one["variant"] or "",
        "steps": "" if step is None else f"{step:,}" if steps is None else f"{step:,}/{steps:,}",
        "best validation": best,
        "scores × 100": "; ".join(headline_in_words(name, figure) for name, figure in (one["scores"] or {}).items()),
    }


def _show_one(runs: Path, name: str, as_json: bool) -> None:
    from epalm.console import print_table
    from epalm.train.runs.listing import details, run_record
    from epalm.train.runs.run_folder import RunFolder

    run = RunFolder.find(runs, name)
    record, more = run_record(run, runs), details(run)
    if as_json:
        typer.echo(json.dumps({**record, **more}))
        return
    rows = {**_cells(record), "folder": record["path"], "damage": record["fault"] or ""}
    rows |= {key.replace("_", " "): str(value) for key, value in more.items()}
    print_table(record["name"], ("", ""), [row for row in rows.items() if row[1]])


def _show_two(runs: Path, names: list[str], as_json: bool) -> None:
    from epalm.console import print_table, say
    from epalm.train.runs.listing import run_differences
    from epalm.train.runs.run_folder import RunFolder

    changes = run_differences(*(RunFolder.find(runs, name) for name in names))
    if as_json:
        typer.echo(json.dumps({"runs": names, "differences": changes}))
    elif changes:
        print_table(f"{names[0]} → {names[1]}", ("what differs",), [(line,) for line in changes])
    else:
        say("the same training: nothing that decides it differs")
