"""A grid of trainings from one shared cache: each cell trained and scored by the very commands that a user types.

Knows command lines and the files that they leave; does not know what is compared.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epalm.cli.extract import BAD_MEDIA
from epalm.cli.recipe_options import PLAYGROUND
from epalm.cli.side_by_side import Command, run_chains
from epalm.errors import EpalmError
from epalm.figures import samples_in_words
from epalm.fingerprint import digest_json
from epalm.samples import HEADLINE, Modality, Task


@dataclass(frozen=True)
class Features:
    """One extraction: its modality and the options of `epalm extract` that make it different."""

    modality: Modality
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name of its logs."""
        return f"extract-{self.modality}" + (f"-{digest_json(list(self.words))[:8]}" if self.words else "")


@dataclass(frozen=True)
class Cell:
    """One training: its features, its name, and the options of `epalm train` that make it different.

    Cells whose features and `decides` are equal are one training, whatever their names and however they say it.
    `in_loop`: the encoder runs in the training loop, and the cache is not used.
    """

    features: Features
    name: str = field(compare=False)
    words: tuple[str, ...] = field(compare=False)
    decides: str
    in_loop: bool = False

    @property
    def label(self) -> str:
        """Name of its logs."""
        return f"{self.features.modality}-{self.name}"


@dataclass(frozen=True)
class Outcome:
    """What a cell came to: what `epalm train --json` and `epalm score --json` said."""

    trained: Mapping[str, Any]
    scores: Mapping[str, Any]

    def figure(self, task: Task, kind: str = "metrics") -> float:
        """A task's headline measure, a fraction; of kind "chance": what guessing gives."""
        return float(self.scores["tasks"][task][kind][HEADLINE[task]])

    def samples(self, task: Task) -> str:
        """Of how many samples that is, in words."""
        return samples_in_words(self.scores["tasks"][task]["figures"][HEADLINE[task]])


@dataclass(frozen=True)
class Grid:
    """Where a grid works, on what, and what is scored.

    `folder` takes runs and logs. `named`: its runs are called as their cells; else by their time, and found again by
    all that decides them. Up to `allow_missing` media may be without features.
    """

    cache: str
    folder: Path
    metrics: tuple[str, ...]
    data: str = PLAYGROUND
    recipe: str | None = None
    split: str = "test"
    named: bool = False
    allow_missing: int = 0

    def run(self, cells: Sequence[Cell]) -> dict[Cell, Outcome]:
        """Every cell's outcome. What is extracted, trained and scored already says so; what was stopped goes on.

        Raises:
            EpalmError: a command failed.
        """
        wanted = dict.fromkeys(cell.features for cell in cells if not cell.in_loop)
        self._run("extract", "feature sets", [[self._extraction(features)] for features in wanted])
        each = list(dict.fromkeys(cells))
        self._run("train and score", "trainings", [self._chain(cell) for cell in each])
        return {cell: self._outcome(cell) for cell in each}

    def report(self, pages: Mapping[Path, Sequence[Cell]], *, samples: int) -> None:
        """Write each page, of the cells in it, the first of which the others are compared with; of a `named` grid.

        Raises:
            EpalmError: a command failed.
        """
        chains = []
        for page, cells in pages.items():
            words = ("report", *(cell.label for cell in cells), "--samples", str(samples), "--out", str(page))
            chains.append([Command((*words, "--runs", str(self.folder)), self._log(page.stem))])
        self._run("report", "pages", chains)

    def done(self, cell: Cell) -> Outcome | None:
        """What a cell came to earlier, None where it was not trained and scored to the end."""
        try:
            found = self._outcome(cell)
            return found if found.scores["run"] == Path(found.trained["run"]).name else None
        except (EpalmError, KeyError, TypeError):
            return None

    def _run(self, title: str, unit: str, chains: Sequence[Iterator[Command] | Sequence[Command]]) -> None:
        # Two of the playground's tiny models fill two cores; a large model has the machine to itself.
        side_by_side = min(2, os.cpu_count() or 1) if self.data == PLAYGROUND else 1
        run_chains(title, chains, unit=unit, at_once=side_by_side)

    def _extraction(self, features: Features) -> Command:
        words = ("extract", "--modality", features.modality.value, *self._data(), "--cache", self.cache)
        fine = (0, BAD_MEDIA) if self.allow_missing else (0,)
        log, out = self._log(features.label), self._out(features.label)
        return Command((*words, *features.words, "--json"), log, out, fine)

    def _chain(self, cell: Cell) -> Iterator[Command]:
        """The commands of a cell, each made when the one before has ended."""
        places = ("--cache", self.cache, "--runs", str(self.folder))
        source: tuple[str, ...] = ()
        if not cell.in_loop:
            source = ("--from-cache", "--feature-set", read_json(self._out(cell.features.label))["set_name"])
        missing = ("--allow-missing", str(self.allow_missing)) if self.allow_missing and not cell.in_loop else ()
        recipe = ("--recipe", self.recipe) if self.recipe else ()
        named = ("--run", cell.label) if self.named else ()
        train = ("train", *source, "--modality", cell.features.modality.value, *self._data(), *recipe, *named)
        label = f"train-{cell.label}"
        yield Command((*train, *cell.words, *missing, "--json", *places), self._log(label), self._out(label))
        if self.data == PLAYGROUND and self.done(cell):
            return  # its test split never changes; other data are scored again, which decodes nothing twice
        label, run = f"score-{cell.label}", read_json(self._out(label))["run"]
        score = ("score", "--run", run, "--split", self.split, "--metrics", ",".join(self.metrics))
        yield Command((*score, *missing, "--json", *places), self._log(label), self._out(label))

    def _data(self) -> tuple[str, ...]:
        return () if self.data == PLAYGROUND else ("--data", self.data)

    def _outcome(self, cell: Cell) -> Outcome:
        return Outcome(*(read_json(self._out(f"{stage}-{cell.label}")) for stage in ("train", "score")))

    def _log(self, label: str) -> Path:
        return self.folder / "logs" / f"{label}.txt"

    def _out(self, label: str) -> Path:
        return self.folder / "logs" / f"{label}.json"


def read_json(path: Path) -> dict[str, Any]:
    """What a command printed with --json. Raises EpalmError: it is not there, or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EpalmError(f"{path} cannot be read: {error}", hint="the same command makes it again") from error
    if not isinstance(value, dict):
        raise EpalmError(f"{path} does not hold what a command prints", hint="the same command makes it again")
    return value
