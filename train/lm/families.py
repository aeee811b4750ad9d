"""Families of language models: what was tested of each, and which are refused. The table is `families.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Family:
    """One family, by transformers' model_type."""

    name: str
    state: str  # tested or refused
    models: str
    real: str = ""  # what was done with real weights
    note: str = ""


@cache
def families() -> dict[str, Family]:
    """Every family of the table by its name."""
    table = tomllib.loads(files("epalm.train.lm").joinpath("families.toml").read_text(encoding="utf-8"))
    return {name: Family(name, state, **entry) for state in table for name, entry in table[state].items()}
