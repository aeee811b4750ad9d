"""What `--plan` prints of a training and of a scoring: media, work, bytes to write against bytes free, time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from epalm.console import print_table, size_in_words, time_in_words, warn
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.runs.run_folder import free_bytes, require_room

_MEDIA = {
    "media": "media",
    "in_cache": "in the cache",
    "sourceless": "of these without a file here",
    "new": "not extracted yet",
    "stale": "stale: the file has changed",
    "bad": "bad, in the ledger",
    "absent": "neither file nor row",
}
_WORK = {
    "steps": "steps",
    "epochs": "epochs",
    "warmup_steps": "steps of warm-up",
    "train_items": "training items",
    "validation_items": "validation items, each time",
    "missing_samples": "samples without features, left out",
    "trainable_parameters": "trained parameters",
    "samples": "samples",
    "without_features": "without features",
    "decoded_already": "decoded already",
    "equal_to_another": "equal to another one",
    "to_decode": "to decode",
}
_TIMED = {"train": "a few steps", "score": "some samples"}


def show_plan(verb: str, figures: Mapping[str, Any], features: FeatureSource, folder: Path, as_json: bool) -> None:
    """Print what a training (`epalm.train.run.plan`) or a scoring (`estimate_score`) would do in a folder.

    Raises:
        EpalmError: what it writes would not fit.
    """
    for warning in figures.get("warnings", ()):
        warn(warning)
    media, free = features.coverage() if isinstance(features, CachedFeatures) else {}, free_bytes(folder)
    if as_json:
        typer.echo(json.dumps({**figures, "media": media or None, "free_bytes": free}))
    else:
        counts = {words: media[key] for key, words in _MEDIA.items() if key in media}
        counts |= {words: figures[key] for key, words in _WORK.items() if key in figures}
        counts |= {f"  {reason}": count for reason, count in figures.get("reasons", {}).items()}
        if answers := figures.get("decode", {}).get("answers"):
            counts["answers to rank for each question"] = answers
        rows = {words: f"{count:,}" for words, count in counts.items()} | {
            "to write": size_in_words(int(figures["bytes"])),
            "free": size_in_words(free),
            f"time, from {_TIMED[verb]} on this machine": time_in_words(figures["seconds"]),
        }
        print_table(f"{verb} would do", ("", ""), list(rows.items()))
    require_room(folder, figures["bytes"])
