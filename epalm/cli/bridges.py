"""`epalm bridges`: what can stand between encoder and language model."""

import sys
from typing import Annotated

import typer

from epalm.cli.tables import Format, Listing, Record, show_listing
from epalm.console import say
from epalm.errors import UsageError

_WIDTHS, _GRID, _BLOCKS = (1024, 4096), (16, 16), 32  # of ViT-L/14 and a language model of 7 billion parameters


def bridges(
    name: Annotated[str | None, typer.Argument(help="A bridge's name. [default: list all]", show_default=False)] = None,
    *,
    listing: Listing,
) -> None:
    """List the bridges: what each reads, what it makes, where that enters, and how large it is.

    Sizes are from a ViT-L/14 (257 tokens of width 1024) to a language model of 32 blocks and hidden size 4096. With a
    name, what that bridge computes, its papers, and its own settings with their defaults, as --set takes them.

    Examples:

        epalm bridges
        epalm bridges random-tokens
    """
    from epalm.train.bridge.registry import bridges as every

    if name is None:
        rows = [_describe(one) for one in every()]
        show_listing(rows, listing.form, title="bridges", cells=_cells, empty="none")
        return
    if name not in every():
        raise UsageError(f"there is no bridge {name!r}", hint=f"use {', '.join(sorted(every()))}")
    one = every()[name]
    made = getattr(one.make, "func", one.make)
    if listing.form is Format.TABLE:
        say(str(sys.modules[made.__module__].__doc__))
    own = [{"setting": f"bridge.{key}", "default": value} for key, value in one.settings().model_dump().items()]
    show_listing(own, listing.form, title="its settings", empty="it has no settings of its own")


def _describe(name: str) -> Record:
    import torch

    from epalm.cache.token_rules import TokenLayout
    from epalm.train.bridge.registry import bridges as every

    one = every()[name]
    entry = one.entry(_BLOCKS)
    with torch.device("meta"):
        layout = TokenLayout(True, _GRID).narrowed(one.reads[0])
        built = one.build(one.layers, layout, *_WIDTHS, entry.end - entry.start, **one.settings().model_dump())
    return {
        "name": name,
        "reads": list(one.reads),
        "layers": one.layers,
        "groups": built.groups,
        "front": built.front,
        **entry._asdict(),
        "prompt": one.prompt[1] if one.prompt[0] != "none" else 0,
        "parameters": sum(tensor.numel() for tensor in built.parameters()),
        "source": one.source,
    }


def _cells(one: Record) -> dict[str, str]:
    last = f" to {one['end'] - 1}" if one["end"] > one["start"] + 1 else ""
    stays = one["groups"] and one["exit"] is None
    return {
        "name": one["name"],
        "reads": f"{', '.join(one['reads'])}; layers: {one['layers']}",
        "makes": f"{one['groups']} × {one['front']}" if one["groups"] else "an addition",
        "into blocks": f"{one['start']}{last}{', and stays' if stays else ''}",
        "parameters": f"{one['parameters'] / 1e6:,.1f} M",
        "source": one["source"],
    }
