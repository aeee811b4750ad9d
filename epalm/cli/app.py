"""The `epalm` command: its sub-commands in the order in which a newcomer needs them."""

from typing import Annotated

import typer

from epalm.cli.bench.command import bench
from epalm.cli.bridges import bridges
from epalm.cli.cache import cache_app
from epalm.cli.datasets import datasets
from epalm.cli.demo import demo
from epalm.cli.doctor import doctor
from epalm.cli.evaluate.compare import compare
from epalm.cli.evaluate.predict import predict
from epalm.cli.evaluate.report import report
from epalm.cli.evaluate.score import score
from epalm.cli.evaluate.serve import serve
from epalm.cli.extract import extract
from epalm.cli.lms import lms
from epalm.cli.options import takes_requests
from epalm.cli.runs import export_run, import_run, runs
from epalm.cli.train import recipes, train

app = typer.Typer(
    help="A frozen language model that sees, watches and listens.\n\n"
    "Three stages: `epalm extract --modality video`, `epalm train --from-cache`, `epalm score`.\n\n"
    "With no data given, each works on the playground, a small built-in world.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from epalm import __version__

        typer.echo(f"epalm {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None: ...


listings = (runs, recipes, datasets, lms, bridges)
for command in (demo, extract, train, score, compare, report, predict, serve, *listings, doctor):
    app.command()(takes_requests(command))
app.command("import")(takes_requests(import_run))
app.command("export")(takes_requests(export_run))
app.command()(takes_requests(bench))
app.add_typer(cache_app, name="cache")
