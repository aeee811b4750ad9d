"""`epalm runs`: what was trained, what is being trained, what was stopped; and what two runs differ in."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import DEFAULT_RUNS, JsonOption, RunsOption

if TYPE_CHECKING:
    from epalm.train.runs.listing import RunStatus


def runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="A run to look at closely, or two to compare.", show_default=False)
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """List the runs: done, running, stopped at a step, or damaged; with the best validation and the scores.

    With a name, all that is known of that run; with two, what differs between them.

    Examples:

        epalm runs

        epalm runs my-run --json

        epalm runs one other
    """
    from epalm.console import print_table, say
    from epalm.errors import UsageError
    from epalm.train.runs.listing import list_runs

    if names and len(names) > 2:
        raise UsageError(f"{len(names)} runs are named", hint="name one to look at it, two to compare them")
    if names:
        (_show_one if len(names) == 1 else _show_two)(runs, names, as_json)
        return
    found = list_runs(runs)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found]))
    elif found:
        columns = ("run", "state", "modality", "recipe", "variant", "steps", "best validation", "scores × 100")
        print_table(f"runs in {runs}", columns, [_row(one) for one in found])
        for one in found:
            if one.fault:
                say(f"{one.name}: {one.fault}")
    else:
        say(f"there is no run in {runs}; epalm train --from-cache makes one")


def _row(one: "RunStatus") -> tuple[str, ...]:
    from epalm.figures import headline_in_words

    steps = "" if one.step is None else f"{one.step:,}" if one.steps is None else f"{one.step:,}/{one.steps:,}"
    best = "" if one.val_loss is None else f"{one.val_loss:.3f} nats"
    best += "" if one.val_exact is None else f", exact {one.val_exact:.3f}"
    of = "" if one.val_of is None else f" of {one.val_of:,}"
    best += "" if one.val_samples is None else f" ({one.val_samples:,}{of} samples)"
    scores = "; ".join(headline_in_words(name, figure) for name, figure in (one.scores or {}).items())
    state = f"stopped at step {one.step or 0:,}" if one.state == "stopped" else one.state
    return (one.name, state, one.modality or "", one.recipe or "", one.variant or "", steps, best, scores)


def _show_one(runs: Path, names: list[str], as_json: bool) -> None:
    from epalm.console import print_table
    from epalm.train.runs.listing import details, run_status
    from epalm.train.runs.run_folder import RunFolder

    run = RunFolder.find(runs, names[0])
    one, more = run_status(run, runs), details(run)
    if as_json:
        typer.echo(json.dumps({**asdict(one), **more}))
        return
    words = ("run", "state", "modality", "recipe", "variant", "steps", "best validation", "scores × 100")
    rows = [*zip(words, _row(one), strict=True), ("folder", one.path)]
    rows += [("damage", one.fault)] if one.fault else []
    rows += [(key.replace("_", " "), str(value)) for key, value in more.items()]
    print_table(one.name, ("", ""), [(key, value) for key, value in rows if value])


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
