"""The options that choose a training's settings, and what each is short for. Knows no data and no models."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

PLAYGROUND = "playground"
OWN = "own"


class Unfrozen(StrEnum):
    """What is trained beside the connector."""

    LM = "lm"
    ENCODER = "encoder"


RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="A recipe's name or a .toml file. [default: that of the same name as the data; own for yours]",
        show_default=False,
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        help="epalm, epalm-pt, epalm-lin, epalm-ada or epalm-pt-l. [default: the recipe's]", show_default=False
    ),
]
InjectOption = Annotated[
    str | None,
    typer.Option(
        metavar="TOKENS@START:END",
        help="Where perceptual tokens enter, such as 6@19:31. [default: the recipe's]",
        show_default=False,
    ),
]
UnfreezeOption = Annotated[
    list[Unfrozen] | None,
    typer.Option(help="Train the language model or the encoder too; may be given twice.", show_default=False),
]
FewShotOption = Annotated[
    str | None,
    typer.Option(
        metavar="COUNT|SHARE",
        help="Train on so many samples (16) or such a share of them (0.01), drawn by the seed. "
        "Brings the few-shot figures along.",
        show_default=False,
    ),
]
BalancedOption = Annotated[
    bool, typer.Option("--balanced", help="--few-shot draws from each type of question in turn.")
]
BlindOption = Annotated[
    bool, typer.Option("--blind", help="Withhold the perceptual token: what the text alone gives away.")
]
SeedOption = Annotated[int | None, typer.Option(help="Short for --set optim.seed=N.", min=0, show_default=False)]


def in_full(
    settings: Sequence[str] | None,
    *,
    variant: str | None = None,
    inject: str | None = None,
    unfreeze: Sequence[Unfrozen] | None = None,
    few_shot: str | None = None,
    balanced: bool = False,
    blind: bool = False,
    seed: int | None = None,
) -> list[str]:
    """The short options as overrides, then those of --set, which win.

    Raises:
        UsageError: an option is not of its form.
    """
    from epalm.settings import parse_inject

    overrides = [f"model.variant={variant}"] if variant else []
    if inject is not None:
        overrides += [
            f"model.{key}={value}" for key, value in zip(("tokens", "start", "end"), parse_inject(inject), strict=True)
        ]
    overrides += [f"{part.value}.train=true" for part in unfreeze or ()]
    overrides += [f"data.few_shot={few_shot}"] if few_shot is not None else []
    overrides += ["data.balanced=true"] if balanced else []
    overrides += ["model.blind=true"] if blind else []
    overrides += [f"optim.seed={seed}"] if seed is not None else []
    return [*overrides, *(settings or [])]


def recipe_for(data: str) -> str:
    """The recipe of the same name as a benchmark's data, or the playground's; `own` for a user's own data.

    Raises:
        UsageError: there is none for that benchmark.
    """
    from epalm.config import recipes
    from epalm.datasets.benchmarks import parse_spec
    from epalm.errors import UsageError
    from epalm.samples import LINKS

    if data == PLAYGROUND:
        return PLAYGROUND
    named = parse_spec(data.removeprefix(LINKS))
    if named is None:
        return OWN
    if named[0].name not in recipes():
        raise UsageError(
            f"data {named[0].name!r} needs a --recipe", hint=f"--recipe {OWN} fits the schedule to the data"
        )
    return named[0].name
