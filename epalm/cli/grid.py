"""A grid of trainings from one shared cache: each cell trained and scored by the very commands that a user types.

Knows command lines and the files that they leave; does not know what is compared.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cli.side_by_side import Command, run_chains
from epalm.samples import HEADLINE, Modality, Task


@dataclass(frozen=True)
class Cell:
    """One training: its modality, its name in the grid, and the options of `epalm train` that make it different."""

    modality: Modality
    name: str
    words: tuple[str, ...] = ()

    @property
    def run(self) -> str:
        """Name of its run folder."""
        return f"{self.modality}-{self.name}"


@dataclass(frozen=True)
class Outcome:
    """What a cell came to: what `epalm train --json` and `epalm score` said."""

    trained: Mapping[str, Any]
    scores: Mapping[str, Any]

    def figure(self, task: Task, kind: str = "metrics") -> float:
        """A task's headline measure, a fraction; of kind "chance": what guessing gives."""
        return float(self.scores["tasks"][task][kind][HEADLINE[task]])


@dataclass(frozen=True)
class Grid:
    """Where a grid works: its cache, the folder that takes runs and logs; and what is scored."""

    cache: str
    folder: Path
    metrics: tuple[str, ...]

    def extract(self, modalities: Sequence[Modality]) -> None:
        """Features of the playground's media, those that the cache lacks. Raises EpalmError when a command fails."""
        self._run("extract", [[self._extraction(modality)] for modality in modalities])

    def train_and_score(self, cells: Sequence[Cell]) -> dict[Cell, Outcome]:
        """Every cell's outcome. What is trained already says so; what was stopped goes on.

        Raises:
            EpalmError: a command failed: also where a folder of a cell's name is of another training.
        """
        self._run("train and score", [self._chain(cell) for cell in cells])
        return {cell: Outcome(_read(self._trained(cell)), _read(self._scores(cell))) for cell in cells}

    def report(self, pages: Mapping[Path, Sequence[Cell]], *, samples: int) -> None:
        """Write each page, of the cells in it, the first of which the others are compared with. Raises EpalmError."""
        chains = []
        for page, cells in pages.items():
            words = ("report", *(cell.run for cell in cells), "--samples", str(samples), "--out", str(page))
            log = self.folder / "logs" / f"{page.stem}.txt"
            chains.append([Command((*words, "--runs", str(self.folder)), log)])
        self._run("reports", chains)

    def _run(self, title: str, chains: Sequence[Sequence[Command]]) -> None:
        run_chains(title, chains, at_once=min(2, os.cpu_count() or 1))

    def _extraction(self, modality: Modality) -> Command:
        words = ("extract", "--modality", modality.value, "--cache", self.cache)
        return Command(words, self.folder / "logs" / f"extract-{modality}.txt")

    def _chain(self, cell: Cell) -> list[Command]:
        places = ("--cache", self.cache, "--runs", str(self.folder))
        train = ("train", "--from-cache", "--modality", cell.modality.value, "--run", cell.run, *cell.words)
        logs = self.folder / "logs"
        chain = [Command((*train, "--json", *places), logs / f"train-{cell.run}.txt", self._trained(cell))]
        if not self._scores(cell).exists():  # of this training: in a folder that is another's it ends before
            wanted = ("--metrics", ",".join(self.metrics))
            chain.append(Command(("score", "--run", cell.run, *wanted, *places), logs / f"score-{cell.run}.txt"))
        return chain

    def _trained(self, cell: Cell) -> Path:
        return self.folder / "logs" / f"train-{cell.run}.json"

    def _scores(self, cell: Cell) -> Path:
        return self.folder / cell.run / "scores.json"


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
