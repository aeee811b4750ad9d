"""`epalm ablate`: what a choice is worth, as a table of trainings from one shared cache. So far: the variants."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from epalm.cli.grid import Cell, Grid, Outcome
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption, SetOption
from epalm.samples import HEADLINE, Modality, Task

BLIND, CHANCE = "blind", "chance"
_TASKS = {Task.QA: "QA", Task.CAPTION: "CIDEr"}
ablate_app = typer.Typer(help="What a choice is worth, as a table of trainings from one cache.", no_args_is_help=True)


@ablate_app.callback()
def _group() -> None: ...


@ablate_app.command()
def variants(
    *,
    modalities: Annotated[
        list[Modality] | None,
        typer.Option(
            "--modality", "-m", help="Which media; may be given several times. [default: all]", show_default=False
        ),
    ] = None,
    settings: SetOption = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Put the table into this Markdown file too, between its two lines `<!-- variants -->` and "
            "`<!-- /variants -->`.",
            show_default=False,
        ),
    ] = None,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """Train and score every variant of the method on the playground: trained parameters, time, accuracy.

    Beside them stand *blind* (the variant `epalm` with the perceptual token withheld) and *chance*. `epalm-pt-l` is
    `epalm-pt` with a larger encoder and language model; the playground has one of each, and trains the two alike.

    What is stopped goes on with the same command; what was trained is not trained again.

    Examples:

        epalm ablate variants

        epalm ablate variants --modality image --set optim.max_steps=100

        epalm ablate variants --write README.md
    """
    from epalm.cli.marked import replace_marked, require_marks
    from epalm.console import print_table, say

    if write:
        require_marks(write, "variants")
    chosen = list(dict.fromkeys(modalities or Modality))
    overrides = settings or []
    alike = _trained_alike(overrides)
    grid = Grid(cache, runs / _folder(overrides), tuple(HEADLINE.values()))
    say(f"data: the playground, a small built-in world; all that the commands print is in {grid.folder / 'logs'}")
    grid.extract(chosen)
    words = {name: _words(name, overrides) for name in [*dict.fromkeys(alike.values()), BLIND]}
    cells = [Cell(modality, name, options) for modality in chosen for name, options in words.items()]
    outcomes = {(cell.name, cell.modality): done for cell, done in grid.train_and_score(cells).items()}
    rows = [_row(name, [outcomes[alike.get(name, name), modality] for modality in chosen]) for name in [*alike, BLIND]]
    rows.append(_chance([outcomes[BLIND, modality] for modality in chosen]))
    columns, table = _columns(chosen), [_cells(row) for row in rows]
    if write:
        replace_marked(write, "variants", _markdown(columns, table))
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        print_table("playground, test split; exact match and CIDEr × 100", columns, table)
    say(f"runs, scores and logs are in {grid.folder}")


def _trained_alike(overrides: list[str]) -> dict[str, str]:
    """Variant → the first variant that the playground's recipe trains with the same settings."""
    from epalm.config import load_config
    from epalm.settings import FORMS

    first: dict[str, str] = {}
    alike = {}
    for name in FORMS:
        resolved = load_config("playground", [f"model.variant={name}", *overrides]).at_known_depth()
        plain = resolved.model_copy(update={"model": resolved.model.model_copy(update={"variant": None})})
        alike[name] = first.setdefault(plain.model_dump_json(), name)
    return alike


def _folder(overrides: list[str]) -> str:
    """Of the runs: one for the recipe as it is, and one for every way to change it."""
    from epalm.fingerprint import digest_json

    return f"variants-{digest_json(overrides)[:8]}" if overrides else "variants"


def _words(name: str, overrides: list[str]) -> tuple[str, ...]:
    chosen = ("--blind",) if name == BLIND else ("--variant", name)
    return (*chosen, *(word for override in overrides for word in ("--set", override)))


def _row(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """One line of the table, over the modalities: seconds are their mean."""
    first = outcomes[0].trained
    return {
        "variant": name,
        "trainable_parameters": first["trainable_parameters"],
        "share": first["trainable_parameters"] / first["all_parameters"],
        "seconds": sum(outcome.trained["seconds"] for outcome in outcomes) / len(outcomes),
        "figures": {task: [outcome.figure(task) for outcome in outcomes] for task in _TASKS},
    }


def _chance(outcomes: list[Outcome]) -> dict[str, Any]:
    guessed = {task: [outcome.figure(task, "chance") for outcome in outcomes] for task in _TASKS}
    return {"variant": CHANCE, "figures": guessed}


def _columns(modalities: list[Modality]) -> list[str]:
    measured = [f"{modality} {title}" for modality in modalities for title in _TASKS.values()]
    return ["variant", "trained parameters", "of all", "training", *measured]


def _cells(row: dict[str, Any]) -> list[str]:
    cost = ["", "", ""]
    if "share" in row:
        cost = [f"{row['trainable_parameters']:,}", f"{row['share']:.2%}", f"{row['seconds']:.0f} s"]
    figures = [f"{100 * value:.1f}" for values in zip(*row["figures"].values(), strict=True) for value in values]
    return [row["variant"], *cost, *figures]


def _markdown(columns: list[str], table: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(columns) - 1)]
    code = [[f"`{cells[0]}`" if cells[0].startswith("epalm") else cells[0], *cells[1:]] for cells in table]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *code])
