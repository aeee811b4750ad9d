"""What `--plan` prints of each stage: media, work, bytes to write against bytes free, time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from epalm.cache.objects.durable import free_bytes
from epalm.console import print_table, size_in_words, time_in_words, warn
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.runs.run_folder import require_room

_TIMED = {"extract": "a probe", "train": "a few steps", "score": "some samples"}


def show_plan(verb: str, figures: Mapping[str, Any], features: FeatureSource, folder: Path, as_json: bool) -> None:
    """Print what a training (`epalm.train.run.plan`) or a scoring (`estimate_score`) would do in a folder.

    Raises:
        EpalmError: what it writes would not fit.
    """
    for warning in figures.get("warnings", ()):
        warn(warning)
    media = features.coverage() if isinstance(features, CachedFeatures) else {}
    known = {key: one for key, one in {**media, **figures}.items() if isinstance(one, int) and key != "bytes"}
    counts = {key.replace("_", " "): count for key, count in known.items()}
    print_plan(verb, {**figures, "media": media or None, "free_bytes": free_bytes(folder)}, counts, as_json)
    require_room(folder, figures["bytes"])


def print_plan(verb: str, figures: Mapping[str, Any], rows: Mapping[str, int | str], as_json: bool) -> None:
    """All figures as JSON; or a table of the rows, and of the figures `bytes`, `free_bytes` and `seconds`."""
    if as_json:
        typer.echo(json.dumps(figures))
        return
    free = figures["free_bytes"]
    table = {words: one if isinstance(one, str) else f"{one:,}" for words, one in rows.items()} | {
        "to write": size_in_words(int(figures["bytes"])),
        "free": "no known limit" if free is None else size_in_words(free),
        f"time, from {_TIMED[verb]} on this machine": time_in_words(figures["seconds"]),
    }
    print_table(f"{verb} would do", ("", ""), list(table.items()))
