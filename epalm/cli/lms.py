"""`epalm lms`: the families of language models, and what one model is like, without loading its weights."""

import tomllib
from importlib.resources import files
from typing import Annotated

import typer

from epalm.cli.tables import Format, Listing, Record, show_listing, show_values
from epalm.console import size_in_words

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "8bit": 1.0, "4bit": 0.5}  # of a weight


def lms(
    name: Annotated[
        str | None,
        typer.Argument(help="A model: Hub name, folder or playground. [default: list families]", show_default=False),
    ] = None,
    *,
    listing: Listing,
) -> None:
    """List the families of language models: what was tested of each, and which cannot be used.

    With a name or folder, what that model is like: blocks, width, sliding windows, positions, the blocks that tokens
    enter by default, and the memory that its weights take. Its configuration is read, and no weights. A family that is
    not in the list may work as well: the command says what its structure allows.

    Examples:

        epalm lms
        epalm lms facebook/opt-2.7b
        epalm lms models/smollm2 --json
    """
    if name is None:
        show_listing([*families().values()], listing.form, title="families of language models", empty="none")
        return
    record = describe_lm(name)
    if listing.form in (Format.CSV, Format.PARQUET):
        show_listing([record], listing.form, title=name, empty="")
    else:
        show_values(_cells(record), listing.form, title=name, as_json=record)


def families() -> dict[str, Record]:
    """Every family of `families.toml` by transformers' model_type: tested or refused, and what is known of it."""
    table = tomllib.loads(files("epalm.train.lm").joinpath("families.toml").read_text(encoding="utf-8"))
    known = {"models": "", "real": "", "note": ""}
    return {
        name: {"name": name, "state": state, **known, **one} for state in table for name, one in table[state].items()
    }


def describe_lm(name: str) -> Record:
    """What its configuration says. Raises UsageError: it cannot be read, or the model cannot be used."""
    from torch import nn

    from epalm.recipes.config import Config
    from epalm.train.lm.load import lm_config, lm_shapes, lm_source
    from epalm.train.lm.profile import find_profile

    config = lm_config(lm_source(name))
    lm = lm_shapes(lm_source(name), config)
    profile = find_profile(lm)
    blocks = len(profile.windows)
    model = Config().resolved(blocks).model
    parameters = sum(tensor.numel() for tensor in lm.parameters())
    linear = [one for one in lm.modules() if isinstance(one, nn.Linear) and one is not lm.get_output_embeddings()]
    quantized = sum(one.weight.numel() for one in linear)  # the rest stays in bfloat16
    family = families().get(profile.family, {})
    family = family if family.get("state") == "tested" else {}  # a refused family may have a model that is not
    return {
        "name": name,
        "family": profile.family,
        "state": family.get("state", "not tested"),
        "note": family.get("note", ""),
        "blocks": blocks,
        "hidden_size": int(config.hidden_size),
        "vocabulary": int(config.vocab_size),
        "positions": int(config.max_position_embeddings),
        "learnt_positions": profile.learnt_positions,
        "window": min((window for window in profile.windows if window), default=None),
        "window_blocks": [block for block, window in enumerate(profile.windows) if window],
        "plain_attention": profile.eager,
        "start": model.start,
        "end": model.end,
        "parameters": parameters,
        "bytes": {
            form: round(quantized * size + (parameters - quantized) * max(size, 2)) for form, size in _BYTES.items()
        },
    }


def _cells(record: Record) -> dict[str, str]:
    shown = {key: value for key, value in record.items() if value not in (None, "", [])}
    shown["bytes"] = ", ".join(f"{size_in_words(size)} in {form}" for form, size in record["bytes"].items())
    return {key.replace("_", " "): f"{value:,}" if type(value) is int else str(value) for key, value in shown.items()}
