"""`epalm cache`: a command for each thing that is done with stored features."""

import typer

from epalm.cli.cache.care import gc, verify, why
from epalm.cli.cache.exchange import export_features, import_features, pull, push
from epalm.cli.cache.sets import info, ledger, list_sets
from epalm.cli.options import takes_requests

cache_app = typer.Typer(
    help="The feature cache: what is there and why, whether it is whole, what can go, and where else it can be.",
    no_args_is_help=True,
)
cache_app.command("ls")(takes_requests(list_sets))
for _command in (info, ledger, why, verify, gc, push, pull):
    cache_app.command()(takes_requests(_command))
cache_app.command("export")(takes_requests(export_features))
cache_app.command("import")(takes_requests(import_features))
