"""Grids of trainings as data: TOML files that say what each row changes in a recipe, and what the columns show.

The packaged ones are the paper's tables of choices, with the published figures (eP-ALM, ICCV 2023, supplementary
material), the variants of the method, and all bridges. Rows are listed, or are the product of axes. Knows settings;
runs nothing.
"""

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from epalm.errors import UsageError
from epalm.recipes.config import parse_inject
from epalm.recipes.settings import Section, Seed, Share
from epalm.samples import Modality, Task

PAPER_BLOCKS = 32  # of the language model that a row's `inject` counts in
PAPER_BANK = (128, 1024)  # mel bins and time frames of the filter bank that a row's `masks` are widths in
FewShot = Annotated[PositiveInt, Field(strict=True)] | Annotated[Share, Field(strict=True)]
_DEEP = 24  # blocks from which on tokens enter as many blocks as in the paper


class Row(Section):
    """One row: a training in each of the grid's modalities. What is None is as usual."""

    label: str
    here: str | None = None  # what the row comes to on these models [what `inject` or `masks` are carried over to]
    set: tuple[str, ...] = ()  # settings, as of --set
    playground: tuple[str, ...] = ()  # more of them on the playground, whose models are small
    inject: str | None = None  # tokens@start:end in the paper's 32 blocks
    masks: tuple[int, int] | None = None  # widest frequency and time mask in the paper's filter bank
    views: PositiveInt | None = None  # augmented views in the cache
    encoder: str | None = None
    tokens: str | None = None  # rule of the tokens that are stored and read [those that the bridge reads]
    frames: PositiveInt | None = None  # of a clip
    lm: str | None = None
    bridge: str | None = None
    few_shot: FewShot | None = None  # samples, or a share of them
    seeds: tuple[Seed, ...] | None = None  # a training each; the row shows their mean [the grid's]
    in_loop: bool = False  # the encoder runs in the training loop, and the cache is not used
    published: Mapping[str, float] = Field(default_factory=dict)  # × 100, by name of the measure

    def settings(self) -> list[str]:
        """What the row sets of a recipe by its own keys: "section.key=value"."""
        places = {"lm.name": self.lm, "model.bridge": self.bridge, "encoder.tokens": self.tokens}
        own: dict[str, str | float | None] = {**places, "data.few_shot": self.few_shot}
        return [f"{key}={json.dumps(value)}" for key, value in own.items() if value is not None]


class GridMeasure(Section):
    """A measure to show, by its name in `scores.json`."""

    task: Task
    name: str
    heading: str | None = None  # [its name]


class Grid(Section):
    """One table."""

    name: str
    title: str
    rows: tuple[Row, ...] = ()
    encoders: tuple[str, ...] = ()  # these axes make a row of each combination, behind the rows that are listed
    lms: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    few_shot: tuple[FewShot, ...] = ()
    seeds: tuple[Seed, ...] = ()  # of every row [the recipe's]
    measures: Annotated[tuple[GridMeasure, ...], Field(min_length=1)]
    first: str = "row"  # heading of the labels
    recipe: str | None = None  # [that of the data]
    modalities: tuple[Modality, ...] = tuple(Modality)
    columns: tuple[
        Literal["here", "parameters", "share", "seconds", "bytes", "measures", "intervals", "published", "ranks"], ...
    ] = ("parameters", "intervals")  # fmt: skip
    published: str | None = None  # on what the published figures were measured
    playground: tuple[str, ...] = ()  # settings of all rows on the playground, before their own
    chance: bool = False  # a last row: what guessing the training split's most common answers and caption gives

    def conflicts(self) -> dict[str, bool]:
        """See `Section`."""
        return {"it has neither rows nor an axis (encoders, lms, bridges, few_shot)": not self.every_row}

    @property
    def every_row(self) -> tuple[Row, ...]:
        """The rows that are listed, and those of the axes."""
        every = {"encoder": self.encoders, "lm": self.lms, "bridge": self.bridges, "few_shot": self.few_shot}
        axes: dict[str, tuple[Any, ...]] = {key: values for key, values in every.items() if values}
        chosen = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
        return *self.rows, *(Row(label=", ".join(map(str, one.values())), **one) for one in chosen)


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
