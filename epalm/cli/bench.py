"""`epalm bench`: what a choice is worth, as a table of trainings from one shared cache."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.cli.options import JsonOption, PlanOption
from epalm.cli.request_options import takes_requests
from epalm.cli.tables import Format, FormatOption, show_listing, write_listing
from epalm.errors import UsageError
from epalm.request_fields import option
from epalm.samples import Modality, with_links
from epalm.train.request import PLAYGROUND, recipe_for

if TYPE_CHECKING:
    from epalm.cli.bench_run import Bench, Training
    from epalm.cli.bench_table import Planned

_FOLDER = "bench"  # of the runs of all tables


@dataclass(frozen=True)
class BenchRequest:
    """What a bench works on, and where. Fields without a text of their own are options that several commands share."""

    data: str = PLAYGROUND
    follow_links: bool = False
    modalities: list[Modality] | None = option(
        "Those of a grid's media to work on; may be given several times. [default: all]",
        None,
        name="modality",
        short="-m",
    )
    recipe: str | None = None
    weights: list[str] | None = option(
        "Hub name or folder for one kind of encoder; may be given several times. "
        "[default: the playground's there, else the published ones]",
        None,
        metavar="ENCODER=WEIGHTS",
    )
    settings: list[str] | None = option(
        "Override one key of the recipe; may be given several times.", None, name="set", metavar="KEY=VALUE"
    )
    split: str = option("Split to decode and score.", "test")
    allow_missing: int = option("Go on without up to this many media.", 0, minimum=0)
    write: Path | None = option(
        "Put each table into this Markdown file too, between its two lines `<!-- GRID -->` and `<!-- /GRID -->`; "
        "tables that the file has no place for are left out.",
        None,
        writable=True,
    )
    cache: str = DEFAULT_CACHE
    runs: Path = Path(DEFAULT_RUNS)
    processes: int = option("Trainings at a time on this machine.", 1, minimum=1, maximum=256, panel="Machine")
    dask: str | None = option(
        "Train on the workers of the Dask scheduler at this tcp://HOST:PORT; cache, runs and data lie where all of "
        "them reach them.",
        None,
        panel="Machine",
    )


@takes_requests
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
    request: BenchRequest,
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

    form = Format.JSON if as_json else form
    data = with_links(request.data, follow=request.follow_links)
    names = [each for one in names for each in (grids() if one == "all" else [one])]
    chosen = [load_grid(name) for name in dict.fromkeys(names)]
    work = Bench(
        request.runs / _FOLDER,
        request.cache,
        data,
        request.recipe or recipe_for(data),
        split=request.split,
        allow_missing=request.allow_missing,
        processes=request.processes,
        dask=request.dask,
    )
    marked = []
    if request.write:
        reads = [*data_files(data), *data_files(work.recipe)]
        require_output(request.write, reads, ours=lambda _: True, force=False)  # its two lines say where to write
        marked = marked_among(request.write, [grid.name for grid in chosen])
    weights, modalities = _by_kind(request.weights or []), request.modalities or list(Modality)
    planned = [plan_grid(grid, work, request.settings or [], weights, modalities) for grid in chosen]
    if plan:
        _show_plan([grid.name for grid in chosen], planned, work, form)
        return
    say(f"data: {'the playground, a small built-in world' if data == PLAYGROUND else data}")
    say(f"messages of the trainings are in {work.folder / 'logs'}")
    outcomes = run_trainings([training for one in planned for training in one.values()], work)
    tables = [make_table(grid, work, one, outcomes) for grid, one in zip(chosen, planned, strict=True)]
    for table in tables:
        if request.write and table.name in marked:
            replace_marked(request.write, table.name, table.markdown())
        if form is Format.TABLE:
            print_table(f"{table.name}: {table.caption}", table.columns, table.rows)
    if form is not Format.TABLE:
        import pandas as pd

        write_listing(pd.DataFrame([record for table in tables for record in table.records]), form)
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
            "modality": training.extract.modality.value,
            "settings": training.request.changes.settings,
            "features": _features(training),
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


def _features(training: "Training") -> str:
    """What is not as usual in the extraction."""
    from epalm.extract.request import ExtractRequest

    if training.in_loop:
        return "encoder in the loop"
    usual = ExtractRequest(training.extract.modality)
    extract = {name: value for name, value in asdict(training.extract).items() if value != getattr(usual, name)}
    return " ".join(f"{name}={value}" for name, value in extract.items() if name not in ("data", "cache"))
