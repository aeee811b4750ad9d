"""`epalm export`: a run as a small folder to hand on."""

import json
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.options import DEFAULT_RUNS, CheckpointOption, JsonOption, RunsOption


def export_run(
    run: Annotated[str, typer.Argument(help="A run's name or folder.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The folder to make.", writable=True, show_default=False)],
    *,
    checkpoint: CheckpointOption = "best",
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """Write a run's trained tensors, its settings and a model card into a folder, to hand on or to push to the Hub.

    In Python, `epalm.load(folder)` gives a model with `answer` and `caption`; `epalm predict --run folder` and
    `epalm score --run folder` take it as well. Language model and encoder are not in it.

    Examples:

        epalm export my-run my-model

        epalm export .epalm/runs/my-run my-model --checkpoint latest
    """
    from epalm.console import say, size_in_words
    from epalm.train.runs.export import export_run as write
    from epalm.train.runs.run_folder import RunFolder

    size = write(RunFolder.find(runs, run), out, checkpoint=checkpoint)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "bytes": size}))
    say(f"{out}, {size_in_words(size)}; in Python: epalm.load({str(out)!r})")
