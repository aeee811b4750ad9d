"""`epalm bench`: what a choice is worth, as a table of trainings from one shared cache."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from epalm import PLAYGROUND
from epalm.cli.bench.trainings import BenchRequest, Training, earlier_outcome, plan_sets, run_trainings
from epalm.cli.tables import Format, Listing, show_listing
from epalm.console import print_table, say, size_in_words, time_in_words
from epalm.errors import UsageError
from epalm.samples import with_links
from epalm.train.request import recipe_for

if TYPE_CHECKING:
    from epalm.cli.bench.planning import Planned


def bench(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="GRID...",
            help="table-1, table-2, table-3, table-4, variants, all of these, bridges, levels-smollm2, or .toml files.",
            show_default=False,
        ),
    ],
    *,
    request: BenchRequest,
    plan: bool = False,
    listing: Listing,
) -> None:
    """Train and score every row of a grid, from one cache: which choice is worth what.

    `table-1`: what is unfrozen; the last row has its encoder in the loop. `table-2`: video encoder and frames.
    `table-3`: which of the encoder's layers go to which blocks of the language model. `table-4`: SpecAugment.
    `variants`: the variants of the method, *blind* (the perceptual token withheld) and *chance*. The paper's tables
    show the published figures too: data and models differ, so only the order of the rows compares. `levels-smollm2`:
    table-3 with a real language model; `lm.name` is its folder or Hub name. `bridges`: all bridges, three seeds each,
    beside DePALM's figures. A grid of your own is a TOML file: rows, or axes (encoders, lms, bridges, few_shot), and
    seeds, over which a row is averaged.

    What is stopped goes on with the same command; what was trained for any table is not trained again.

    Examples:

        epalm bench variants
        epalm bench all --processes 2
        epalm bench table-3 --data msvd-qa:/data/msvd --set lm.name=facebook/opt-2.7b --plan
        epalm bench levels-smollm2 --set lm.name=models/smollm2
        epalm bench mine.toml --format csv > mine.csv
        epalm bench mine.toml --report mine.html
    """
    from epalm.cache.objects.durable import write_atomically
    from epalm.cli.bench.planning import plan_grid
    from epalm.cli.bench.table import make_table, page_of
    from epalm.cli.outputs import data_files, is_own, require_output
    from epalm.grids import grids, load_grid
    from epalm.train.runs.run_folder import writing

    form = listing.form
    data = with_links(request.data, follow=request.follow_links)
    work = replace(request, data=data, runs=request.runs / "bench")
    usual = [name for name in grids() if load_grid(name).recipe is None and name != "bridges"]
    names = [each for one in names for each in (usual if one == "all" else [one])]
    chosen = [load_grid(name) for name in dict.fromkeys(names)]
    if twice := [name for name, count in Counter(grid.name for grid in chosen).items() if count > 1]:
        raise UsageError(f"two grids have the name {twice[0]!r}", hint="rename one of the files")
    recipes = [request.recipe or grid.recipe or recipe_for(data) for grid in chosen]
    if request.report:
        reads = [*data_files(data), *(file for recipe in recipes for file in data_files(recipe))]
        require_output(request.report, reads, ours=is_own(request.report, "bench"), force=request.force)
    planned = {
        grid.name: plan_grid(grid, replace(work, recipe=recipe)) for grid, recipe in zip(chosen, recipes, strict=True)
    }
    metrics: dict[Training, list[str]] = {}  # a training of several grids, or rows, is one
    for grid in chosen:
        for training in chain(*planned[grid.name].values()):
            metrics[training] = list(dict.fromkeys([*metrics.get(training, ()), *(one.name for one in grid.measures)]))
    if plan:
        _show_plan(planned, metrics, work, form)
        return
    say(f"data: {'the playground, a small built-in world' if data == PLAYGROUND else data}")
    say(f"messages of the trainings are in {work.runs / 'logs'}")
    outcomes = run_trainings(metrics, work)
    tables = [make_table(grid, work, planned[grid.name], outcomes) for grid in chosen]
    for table in tables if form is Format.TABLE else ():
        print_table(f"{table.name}: {table.caption}", table.columns, table.rows)
    if request.report:
        with writing(request.report.parent):
            write_atomically(request.report, page_of(tables))
    if form is not Format.TABLE:
        show_listing([record for table in tables for record in table.records], form, title="", empty="")
    say(f"runs, scores and logs are in {work.runs}")


def _show_plan(
    planned: "Mapping[str, Planned]", metrics: Mapping[Training, Sequence[str]], work: BenchRequest, form: Format
) -> None:
    """The trainings with their grids, which are done, what they share, and how long the others take at their rate."""
    outcomes = {training: earlier_outcome(training, some, work) for training, some in metrics.items()}
    done = [outcome.trained for outcome in outcomes.values() if outcome]
    rate = sum(one["seconds"] for one in done) / sum(one["steps"] for one in done) if done else 0.0
    sets = plan_sets(metrics)
    rows = [
        {
            "grids": [name for name, some in planned.items() if training in chain(*some.values())],
            "modality": training.extract.modality.value,
            "settings": training.request.changes.settings,
            "features": "encoder in the loop" if training.in_loop else sets[training.extract].name,
            "steps": steps,
            "done": outcomes[training] is not None,
            "seconds": rate * steps if done and steps and not outcomes[training] else None,
        }
        for training in metrics
        for steps in [json.loads(training.decides)["optim"]["max_steps"]]
    ]
    stored = dict.fromkeys(sets.values())
    there, new = (size_in_words(sum(getattr(one, key) for one in stored)) for key in ("there", "new"))
    notes = [f"{len(rows)} trainings, {len(done)} of them done; these are looked at again, not trained"]
    notes.append(f"feature sets: {len(stored)}; {there} in the cache, {new} to be extracted")
    notes += [
        f"{one.name}: {size_in_words(one.there)} there, {size_in_words(one.new)} new, for "
        f"{sum(not training.in_loop and sets[training.extract] == one for training in metrics)} trainings"
        for one in stored
    ]
    if done:
        taken = time_in_words(sum(row["seconds"] or 0.0 for row in rows))
        notes.append(f"the others take about {taken} one after the other, at the rate of those done")
    show_listing(rows, form, title="trainings", empty="no trainings", notes=notes)
