"""Grids of trainings as data: TOML files that say what each row changes in a recipe, and what the columns show.

The packaged ones are the paper's tables of choices, with the published figures (eP-ALM, ICCV 2023, supplementary
material), and the variants of the method. Knows settings; runs nothing.
"""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError

from epalm.errors import UsageError
from epalm.recipes.config import parse_inject
from epalm.recipes.settings import Section
from epalm.samples import Modality, Task

PAPER_BLOCKS = 32  # of the language model that a row's `inject` counts in
PAPER_BANK = (128, 1024)  # mel bins and time frames of the filter bank that a row's `masks` are widths in
_DEEP = 24  # blocks from which on tokens enter as many blocks as in the paper


class Row(Section):
    """One row: a training in each of the grid's modalities. What is None is as usual."""

    label: str
    here: str | None = None  # what the row comes to on these models [what `inject` or `masks` are carried over to]
    set: tuple[str, ...] = ()  # settings, as of --set
    inject: str | None = None  # tokens@start:end in the paper's 32 blocks
    masks: tuple[int, int] | None = None  # widest frequency and time mask in the paper's filter bank
    views: PositiveInt | None = None  # augmented views in the cache
    encoder: str | None = None
    frames: PositiveInt | None = None  # of a clip
    in_loop: bool = False  # the encoder runs in the training loop, and the cache is not used
    published: Mapping[str, float] = Field(default_factory=dict)  # × 100, by name of the measure


class GridMeasure(Section):
    """A measure to show, by its name in `scores.json`."""

    task: Task
    name: str
    heading: str | None = None  # [its name]


class Grid(Section):
    """One table."""

    name: str
    title: str
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    measures: Annotated[tuple[GridMeasure, ...], Field(min_length=1)]
    first: str = "row"  # heading of the labels
    recipe: str | None = None  # [that of the data]
    modalities: tuple[Modality, ...] = tuple(Modality)
    columns: tuple[
        Literal["here", "parameters", "share", "seconds", "measures", "intervals", "published"], ...
    ] = ("parameters", "intervals")  # fmt: skip
    published: str | None = None  # on what the published figures were measured
    playground_steps: PositiveInt | None = None  # optim.max_steps on the playground
    chance: bool = False  # a last row: what guessing the training split's most common answers and caption gives


def grids() -> list[str]:
    """Names of the packaged grids."""
    return sorted(path.name[:-5] for path in files("epalm.grids").iterdir() if path.name.endswith(".toml"))


def load_grid(name: str) -> Grid:
    """A packaged grid by name, or a TOML file.

    Raises:
        UsageError: there is none of that name, or it cannot be read; every fault of the file is named.
    """
    try:
        if name in grids():
            text = files("epalm.grids").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        elif name.endswith(".toml"):
            text = Path(name).read_text(encoding="utf-8")
        else:
            raise UsageError(f"there is no grid {name!r}", hint=f"use {', '.join(grids())}, all, or a .toml file")
        return Grid(**{"name": Path(name).stem, **tomllib.loads(text)})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise UsageError(
            f"the grid {name}: {'; '.join(faults)}", hint="docs/ablations.md says what a grid has"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the grid {name} cannot be read: {error}", hint="give a .toml file") from error


def carried_over(inject: str, blocks: int) -> tuple[int, int, int]:
    """(tokens, start, end) of "tokens@start:end" in the paper's 32 blocks, in a language model of `blocks`.

    Block 0 stays the first. Later ones keep their distance from the end, which is the last block: in 24 blocks or more
    as it is, below that in the same share. No more tokens than there are blocks for them, so that each is read.
    """
    tokens, *places = parse_inject(inject)
    last = max(1, blocks - 1)

    def here(block: int) -> int:
        before_last = PAPER_BLOCKS - 1 - block
        if before_last and blocks < _DEEP:
            before_last = max(1, blocks * before_last // PAPER_BLOCKS)
        return block if block <= 1 else max(0, last - before_last)

    start, end = map(here, places)
    return min(tokens, end - start), start, end


def masks_of(published: tuple[int, int], bank: tuple[int, int]) -> tuple[int, int]:
    """Widths of the paper's frequency and time mask, as the same share of another filter bank."""
    bins, frames = (round(width * size / paper) for width, size, paper in zip(published, bank, PAPER_BANK, strict=True))
    return bins, frames
