"""`epalm demo`: extract, train and score on the playground, all three modalities, then one table.

Runs the very commands that a user types, each in a process of its own, and adds nothing to them.
"""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption
from epalm.cli.side_by_side import Command, run_chains
from epalm.samples import Modality

_HEADLINE = {"qa": "exact match", "caption": "CIDEr"}
_SIDES = ("perception", "blind")


def demo(cache: CacheOption = DEFAULT_CACHE, runs: RunsOption = DEFAULT_RUNS, as_json: JsonOption = False) -> None:
    """Extract, train and score on the playground: image, video and audio, in minutes on two cores.

    Ends with QA accuracy and caption CIDEr of each modality, beside *blind* (the same training with the perceptual
    token withheld) and *chance* (the training split's most common answers and caption).

    Examples:

        epalm demo

        epalm demo --runs /tmp/runs --json
    """
    from epalm.console import print_table, say
    from epalm.train.run_folder import RunFolder

    started = time.monotonic()
    folder = runs / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    say("data: the playground, a small built-in world; all that the commands print is in " + str(folder / "logs"))
    at_once = min(2, os.cpu_count() or 1)
    run_chains("extract", [[_extract(modality, cache, folder)] for modality in Modality], at_once=at_once)
    sides = [(modality, side) for side in _SIDES for modality in Modality]
    run_chains("train and score", [_train_and_score(*side, cache, folder) for side in sides], at_once=at_once)
    rows = [row for modality in Modality for row in _rows(modality, folder)]
    (folder / "demo.json").write_text(json.dumps(rows, indent=2) + "\n")
    RunFolder(folder / Modality.IMAGE).finish(runs)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        cells = [
            (r["modality"], r["task"], r["measure"], *(f"{100 * r[c]:.1f}" for c in (*_SIDES, "chance"))) for r in rows
        ]
        columns = ("modality", "task", "measure", *_SIDES, "chance")
        print_table("playground, test split, values × 100", columns, cells)
    say(f"{time.monotonic() - started:.0f} s; runs, scores and logs are in {folder}")


def _extract(modality: Modality, cache: str, folder: Path) -> Command:
    words = ("extract", "--modality", modality.value, "--cache", cache)
    return Command(words, folder / "logs" / f"extract-{modality}.txt")


def _train_and_score(modality: Modality, side: str, cache: str, folder: Path) -> list[Command]:
    name = _name(modality, side)
    places = ("--cache", cache, "--runs", str(folder))
    train = ("train", "--from-cache", "--modality", modality.value, "--run", name, *places)
    blind = ("--blind",) if side == "blind" else ()
    score = ("score", "--run", name, *places)
    logs = folder / "logs"
    return [Command((*train, *blind), logs / f"train-{name}.txt"), Command(score, logs / f"score-{name}.txt")]


def _rows(modality: Modality, folder: Path) -> list[dict[str, Any]]:
    scores = [json.loads((folder / _name(modality, side) / "scores.json").read_text()) for side in _SIDES]
    rows = []
    for task, measure in _HEADLINE.items():
        values = [score["tasks"][task]["metrics"][measure] for score in scores]
        chance = scores[0]["tasks"][task]["chance"][measure]
        figures = dict(zip((*_SIDES, "chance"), (*values, chance), strict=True))
        rows.append({"modality": modality.value, "task": task, "measure": measure, **figures})
    return rows


def _name(modality: Modality, side: str) -> str:
    return modality.value if side == "perception" else f"{modality}-{side}"
