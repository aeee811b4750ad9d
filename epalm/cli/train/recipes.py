"""`epalm recipes`: which there are, and what one comes to with the options of a training."""

import json
from typing import Annotated

import typer

from epalm.cli.options import JsonOption
from epalm.cli.request_options import takes_requests
from epalm.cli.tables import Format, FormatOption, Record, show_listing
from epalm.train.request import RecipeChanges


@takes_requests
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe's name or a .toml file. [default: list all]", show_default=False)
    ] = None,
    *,
    changes: RecipeChanges,
    form: FormatOption = Format.TABLE,
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

    chosen = [name] if name else names()
    configs = {one: load_config(one, changes.overrides()).at_known_depth() for one in chosen}
    plain = {one: config.model_dump(mode="json") for one, config in configs.items()}
    if name:
        typer.echo(json.dumps(plain) + "\n" if as_json else configs[name].to_toml(), nl=False)
        return
    import pandas as pd

    frame = pd.json_normalize([{"name": one, **config} for one, config in plain.items()])
    form = Format.JSON if as_json else form
    show_listing(frame, form, title="recipes", cells=_cells, empty="there are none")


def _cells(one: Record) -> dict[str, str]:
    steps, least = one["optim.max_steps"], one["optim.min_steps"]
    epochs = f"{one['optim.epochs']}, {least:.0f} steps at least" if least else str(one["optim.epochs"])
    return {
        "name": one["name"],
        "language model": one["lm.name"],
        "epochs": f"{steps:.0f} steps" if steps else epochs,
        "batch": str(one["optim.batch_size"]),
        "what for": one["description"],
    }
