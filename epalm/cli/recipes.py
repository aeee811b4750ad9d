"""`epalm recipes`: which there are, and what one comes to with the options of a training."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import JsonOption
from epalm.cli.request_options import takes_requests
from epalm.train.request import RecipeChanges

if TYPE_CHECKING:
    from epalm.settings import OptimSettings


@takes_requests
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe's name or a .toml file. [default: list all]", show_default=False)
    ] = None,
    *,
    changes: RecipeChanges,
    as_json: JsonOption = False,
) -> None:
    """List the recipes, or print one with everything filled in, as TOML that --recipe takes.

    The options are those of `epalm train`, and do the same.

    Examples:

        epalm recipes

        epalm recipes vqa-v2 --variant epalm-pt-l

        epalm recipes vqa-v2 --few-shot 0.01 > mine.toml
    """
    from epalm.config import load_config
    from epalm.config import recipes as names

    overrides = changes.overrides()
    configs = {one: load_config(one, overrides).at_known_depth() for one in ([name] if name else names())}
    if as_json:
        typer.echo(json.dumps({one: config.model_dump(mode="json") for one, config in configs.items()}))
    elif name:
        typer.echo(configs[name].to_toml(), nl=False)
    else:
        from epalm.console import print_table

        rows = [
            (one, config.lm.name, _length(config.optim), str(config.optim.batch_size), config.description)
            for one, config in configs.items()
        ]
        print_table("recipes", ("name", "language model", "epochs", "batch", "what for"), rows)


def _length(optim: "OptimSettings") -> str:
    if optim.max_steps:
        return f"{optim.max_steps} steps"
    return f"{optim.epochs}, {optim.min_steps} steps at least" if optim.min_steps else str(optim.epochs)
