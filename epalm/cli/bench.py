"""`epalm bench`: what a choice is worth, as a table of trainings from one shared cache."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.bench_run import PLAYGROUND
from epalm.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    CacheOption,
    DataOption,
    FollowLinksOption,
    JsonOption,
    PlanOption,
    RecipeOption,
    RunsOption,
    SetOption,
)
from epalm.cli.tables import Format, FormatOption, show_listing, write_listing
from epalm.errors import UsageError
from epalm.samples import Modality, with_links
from epalm.train.request import recipe_for

if TYPE_CHECKING:
    from epalm.cli.bench_run import Bench, Training
    from epalm.cli.bench_table import Planned

METRICS = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")  # of every table: a training may be in several
_FOLDER = "bench"  # of the runs of all tables


def bench(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="GRID...",
            help="table-1, table-2, table-3, table-4, variants, all of them, or .toml files.",
            show_default=False,
        ),
    ],
    *,
    data: DataOption = PLAYGROUND,
    follow_links: FollowLinksOption = False,
    modalities: Annotated[
        list[Modality] | None,
        typer.Option(
            "--modality",
            "-m",
            help="Those of a grid's media to work on; may be given several times. [default: all]",
            show_default=False,
        ),
    ] = None,
    recipe: RecipeOption = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="ENCODER=WEIGHTS",
            help="Hub name or folder for one kind of encoder; may be given several times. "
            "[default: the playground's there, else the published ones]",
            show_default=False,
        ),
    ] = None,
    settings: SetOption = None,
    split: Annotated[str, typer.Option(help="Split to decode and score.")] = "test",
    allow_missing: Annotated[int, typer.Option(help="Go on without up to this many media.", min=0)] = 0,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Put each table into this Markdown file too, between its two lines `<!-- GRID -->` and "
            "`<!-- /GRID -->`; tables that the file has no place for are left out.",
            writable=True,
            show_default=False,
        ),
    ] = None,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    processes: Annotated[
        int, typer.Option(help="Trainings at a time on this machine.", min=1, max=256, rich_help_panel="Machine")
    ] = 1,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Train on the workers of the Dask scheduler at this tcp://HOST:PORT; cache, runs and data lie where "
            "all of them reach them.",
            show_default=False,
            rich_help_panel="Machine",
        ),
    ] = None,
    plan: PlanOption = False,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Train and score every row of a grid, from one cache: which choice is worth what.

    `table-1`: what is unfrozen; the last row has its encoder in the loop. `table-2`: video encoder and frames.
    `table-3`: which of the encoder's layers go to which blocks of the language model. `table-4`: SpecAugment.
    `variants`: the variants of the method, *blind* (the perceptual token withheld) and *chance*. The paper's tables
    show the published figures too: data and models differ, so only the order of the rows compares. A grid of your own
    is a TOML file.

    What is stopped goes on with the same command; what was trained for any table is not trained again.

    Examples:

        epalm bench variants

        epalm bench all --processes 2 --write docs/ablations.md

        epalm bench table-3 --data msvd-qa:/data/msvd --set lm.name=facebook/opt-2.7b --plan

        epalm bench mine.toml --format csv > mine.csv
    """
    from epalm.cli.bench_run import Bench, run_trainings
    from epalm.cli.bench_table import make_table, plan_grid
    from epalm.cli.marked import marked_among, replace_marked
    from epalm.cli.outputs import data_files, require_output
    from epalm.console import print_table, say
    from epalm.grids import grids, load_grid

    data = with_links(data, follow=follow_links)
    chosen = [
        load_grid(name)
        for name in dict.fromkeys(each for one in names for each in (grids() if one == "all" else [one]))
    ]
    work = Bench(
        cache, runs / _FOLDER, METRICS, data, recipe or recipe_for(data), split, allow_missing, processes, dask
    )
    if write:
        reads = [*data_files(data), *data_files(work.recipe or "")]
        require_output(write, reads, ours=lambda _: True, force=False)  # its two lines say where it may be written
    marked = marked_among(write, [grid.name for grid in chosen]) if write else []
    by_kind = _by_kind(weights or [])
    planned = [plan_grid(grid, work, settings or [], by_kind, modalities or list(Modality)) for grid in chosen]
    trainings = [training for one in planned for training in one.values()]
    if plan:
        _show_plan([grid.name for grid in chosen], planned, work, Format.JSON if as_json else form)
        return
    say(f"data: {'the playground, a small built-in world' if data == PLAYGROUND else data}")
    say(f"what the commands print is in {work.folder / 'logs'}")
    outcomes = run_trainings(trainings, work)
    tables = [make_table(grid, work, one, outcomes) for grid, one in zip(chosen, planned, strict=True)]
    for table in tables:
        if write and table.name in marked:
            replace_marked(write, table.name, table.markdown())
    if as_json or form is not Format.TABLE:
        import pandas as pd

        records = [record for table in tables for record in table.records]
        write_listing(pd.DataFrame(records), Format.JSON if as_json else form)
    else:
        for table in tables:
            print_table(f"{table.name}: {table.caption}", table.columns, table.rows)
    say(f"runs, scores and logs are in {work.folder}")


def _by_kind(weights: Sequence[str]) -> dict[str, str]:
    from epalm.extract.encoders.registry import encoder_names

    found = {}
    for word in weights:
        kind, equals, name = word.partition("=")
        if kind not in encoder_names() or not equals or not name:
            raise UsageError(
                f"--weights {word!r} is not of the form ENCODER=WEIGHTS",
                hint=f"--weights vit=models/vit; encoders are {', '.join(encoder_names())}",
            )
        found[kind] = name
    return found


def _show_plan(names: Sequence[str], planned: "Sequence[Planned]", work: "Bench", form: Format) -> None:
    """The trainings, which are done, and how long the others take at the rate of those; one of several grids once."""
    import pandas as pd

    from epalm.console import time_in_words

    grids_of: dict[Training, list[str]] = {}
    for name, one in zip(names, planned, strict=True):
        for training in dict.fromkeys(one.values()):
            grids_of.setdefault(training, []).append(name)
    done = {training: outcome.trained for training in grids_of if (outcome := work.done(training))}
    rate = sum(one["seconds"] for one in done.values()) / max(1, sum(one["steps"] for one in done.values()))
    steps = {training: json.loads(training.decides)["optim"]["max_steps"] for training in grids_of}
    records = [
        {
            "grids": grids,
            "modality": training.modality.value,
            "settings": [word for word in training.options if word != "--set"],
            "extract": list(training.extract),
            "in_loop": training.in_loop,
            "steps": steps[training],
            "done": training in done,
            "seconds": rate * steps[training] if rate and steps[training] else None,
        }
        for training, grids in grids_of.items()
    ]
    left = [one["seconds"] for one in records if not one["done"]]
    notes = [f"{len(records)} trainings, {len(done)} of them done; these are looked at again, not trained"]
    if left and all(left):
        notes.append(f"the others take about {time_in_words(sum(left))} one after the other, at the rate of those done")
    show_listing(pd.DataFrame(records, dtype=object), form, title="trainings", empty="no trainings", notes=notes)
