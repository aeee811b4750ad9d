"""`epalm ablate`: what a choice is worth, as a table of trainings from one shared cache."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.ablation import ALL_METRICS, PLAYGROUND_STEPS, Ablation, Made, Place, ablation, require_samples
from epalm.cli.grid import Grid
from epalm.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    CacheOption,
    FollowLinksOption,
    JsonOption,
    PlanOption,
    RunsOption,
    SetOption,
)
from epalm.cli.paper_tables import TABLES
from epalm.cli.recipe_options import PLAYGROUND, RecipeOption, recipe_for
from epalm.cli.variant_table import variants as variant_table
from epalm.errors import UsageError
from epalm.samples import Modality, with_links

if TYPE_CHECKING:
    from epalm.cli.grid import Cell, Outcome

_FOLDER = "ablations"  # of the runs of all tables: a training that several have is one
ablate_app = typer.Typer(help="What a choice is worth, as a table of trainings from one cache.", no_args_is_help=True)

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="What to train and score on, as of `epalm extract`. [default: the playground]",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="ENCODER=WEIGHTS",
        help="Hub name or folder for one kind of encoder; may be given several times. "
        "[default: the playground's there, else the published ones]",
        show_default=False,
    ),
]
SplitOption = Annotated[str, typer.Option(help="Split to decode and score.")]
MissingOption = Annotated[int, typer.Option(help="Go on without up to this many media.", min=0)]
WriteOption = Annotated[
    Path | None,
    typer.Option(
        help="Put the table into this Markdown file too, between its two lines `<!-- NAME -->` and `<!-- /NAME -->`, "
        "NAME being the command's.",
        writable=True,
        show_default=False,
    ),
]
_HELP = """{about}

Published figures stand beside the measured ones. Data and models differ: only the order of the rows compares. On the
playground every training has {steps} steps.

What is stopped goes on with the same command; what was trained for any table is not trained again.

Examples:

    epalm ablate {name}

    epalm ablate {name} --plan

    epalm ablate {name} --data {data}
"""


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
    write: WriteOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    plan: PlanOption = False,
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
    table = variant_table(list(dict.fromkeys(modalities or Modality)), settings or [])
    _show([table], Grid(cache, runs / _FOLDER, ALL_METRICS), write, plan=plan, as_json=as_json)


@ablate_app.command("all")
def every_table(
    *,
    settings: SetOption = None,
    write: WriteOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """All tables on the playground from one cache, each training once: `table-1` to `table-4`, then `variants`.

    With --write, those tables are written that the file has the two lines of.

    Examples:

        epalm ablate all --plan

        epalm ablate all --write docs/ablations.md
    """
    place = Place(overrides=tuple(settings or ()))
    tables = [ablation(table, place) for table in TABLES.values()]
    tables.append(variant_table(list(Modality), settings or []))
    _show(tables, Grid(cache, runs / _FOLDER, ALL_METRICS), write, plan=plan, as_json=as_json)


def _add(name: str, about: str, example: str) -> None:
    """The command of one of the paper's tables; `example` is data for it."""

    def command(
        *,
        data: DataOption = PLAYGROUND,
        follow_links: FollowLinksOption = False,
        recipe: RecipeOption = None,
        weights: WeightsOption = None,
        settings: SetOption = None,
        split: SplitOption = "test",
        allow_missing: MissingOption = 0,
        write: WriteOption = None,
        cache: CacheOption = DEFAULT_CACHE,
        runs: RunsOption = DEFAULT_RUNS,
        plan: PlanOption = False,
        as_json: JsonOption = False,
    ) -> None:
        table, data = TABLES[name], with_links(data, follow=follow_links)
        place = Place(data, recipe or recipe_for(data), tuple(settings or ()), _by_kind(weights or []))
        made = ablation(table, place)
        if not place.playground:
            require_samples(table, data, split)
        where = runs / _FOLDER
        grid = Grid(cache, where, ALL_METRICS, data, place.recipe, split, allow_missing=allow_missing)
        _show([made], grid, write, plan=plan, as_json=as_json)

    text = _HELP.format(about=about, name=name, steps=PLAYGROUND_STEPS, data=example)
    ablate_app.command(name, help=text)(command)


_add(
    "table-1",
    "Unfreezing: the method as it is, with the language model trained too, and with the encoder trained as well. "
    "The last has its encoder in the loop, and so takes nothing from the cache.",
    "vqa-v2:/data/vqa-v2 --set lm.name=facebook/opt-350m",
)
_add(
    "table-2",
    "Video encoder and frames: an image encoder averaged over frames, and a space-time encoder, of 8 and 16 frames; "
    "scored on captions.",
    "msrvtt-caption:/data/msrvtt",
)
_add(
    "table-3",
    "Which of the encoder's layers go to which blocks of the language model, with a soft prompt and with adapters. "
    "The paper's 19 and 31 of 32 blocks are carried over to the depth of the language model at hand.",
    "msvd-qa:/data/msvd",
)
_add(
    "table-4",
    "SpecAugment: the widest frequency and time mask that sounds are augmented with, carried over to the size of the "
    "encoder's filter bank; each width is four augmented views in the cache.",
    "audiocaps:/data/audiocaps",
)


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


def _show(tables: Sequence[Ablation], grid: Grid, write: Path | None, *, plan: bool, as_json: bool) -> None:
    """Do what is not done yet, print the tables, and write those that the file has a place for."""
    from epalm.cli.ablation_plan import show_plan
    from epalm.cli.marked import marked_among, replace_marked
    from epalm.cli.outputs import data_files, require_output
    from epalm.console import print_table, say

    if write:
        reads = [*data_files(grid.data), *data_files(grid.recipe or "")]
        require_output(write, reads, ours=lambda _: True, force=False)  # its two lines say where it may be written
    places = {write: marked_among(write, [table.name for table in tables])} if write else {}
    if plan:
        show_plan(tables, grid, as_json)
        return
    where = "the playground, a small built-in world" if grid.data == PLAYGROUND else grid.data
    say(f"data: {where}; all that the commands print is in {grid.folder / 'logs'}")
    outcomes: Mapping[Cell, Outcome] = grid.run([cell for table in tables for cell in table.cells])
    made = {table.name: table.make(outcomes) for table in tables}
    for path, names in places.items():
        for name in names:
            replace_marked(path, name, _markdown(made[name]))
    if as_json:
        told = {name: one.told for name, one in made.items()}
        typer.echo(json.dumps(told if len(told) > 1 else next(iter(told.values()))))
    else:
        for name, one in made.items():
            print_table(f"{name}: {one.caption}", one.columns, one.rows)
    say(f"runs, scores and logs are in {grid.folder}")


def _markdown(made: Made) -> str:
    rule = ["---", *["---:"] * (len(made.columns) - 1)]
    code = [[f"`{cells[0]}`" if cells[0].startswith("epalm") else cells[0], *cells[1:]] for cells in made.rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in [made.columns, rule, *code])
    return f"{made.caption}\n\n{table}"
