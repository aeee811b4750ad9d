"""What `--plan` prints of a training and of a scoring: media, work, bytes to write against bytes free, time."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from epalm.console import print_table, size_in_words, time_in_words, warn
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.runs.run_folder import free_bytes, require_room

if TYPE_CHECKING:
    from epalm.train.plan import TrainPlan

_MEDIA = {
    "media": "media",
    "in_cache": "in the cache",
    "sourceless": "of these without a file here",
    "new": "not extracted yet",
    "stale": "stale: the file has changed",
    "bad": "bad, in the ledger",
    "absent": "neither file nor row",
}


def show_train_plan(plan: "TrainPlan", features: FeatureSource, runs: Path, as_json: bool) -> None:
    """Raises EpalmError when the checkpoints would not fit."""
    rows = {
        "steps": f"{plan.steps:,}",
        "epochs": f"{plan.epochs:,}",
        "steps of these that warm up": f"{min(plan.warmup_steps, plan.steps):,}",
        "training items": f"{plan.train_items:,}",
        "validation items, each time": f"{plan.validation_items:,}",
        "samples without features, left out": f"{plan.missing_samples:,}",
        "trained parameters": f"{plan.trainable_parameters:,}",
    }
    for warning in plan.warnings:
        warn(warning)
    _show("train", asdict(plan), rows, "a few steps", features, runs, as_json)
    require_room(runs, plan.bytes)


def show_score_plan(plan: Mapping[str, Any], features: FeatureSource, run: Path, as_json: bool) -> None:
    """Raises EpalmError when the predictions would not fit."""
    rows = {
        "samples": f"{plan['samples']:,}",
        "without features": f"{plan['without_features']:,}",
        "decoded already": f"{plan['decoded_already']:,}",
        **({"equal to another one": f"{plan['equal_to_another']:,}"} if plan["equal_to_another"] else {}),
        "to decode": f"{plan['to_decode']:,}",
        **{f"  {reason}": f"{count:,}" for reason, count in plan["reasons"].items()},
        **(
            {"answers to rank for each question": f"{plan['decode']['answers']:,}"}
            if "answers" in plan["decode"]
            else {}
        ),
    }
    _show("score", plan, rows, "some samples", features, run, as_json)
    require_room(run, plan["bytes"])


def _show(
    verb: str,
    figures: Mapping[str, float],
    rows: Mapping[str, str],
    probed: str,
    features: FeatureSource,
    folder: Path,
    as_json: bool,
) -> None:
    media = features.coverage() if isinstance(features, CachedFeatures) else {}
    free = free_bytes(folder)
    if as_json:
        typer.echo(json.dumps({**figures, "media": media or None, "free_bytes": free}))
        return
    told = {
        **{words: f"{media[key]:,}" for key, words in _MEDIA.items() if key in media},
        **rows,
        "to write": size_in_words(int(figures["bytes"])),
        "free": "no known limit" if free is None else size_in_words(free),
        f"time, from {probed} on this machine": time_in_words(figures["seconds"]),
    }
    print_table(f"{verb} would do", ("", ""), list(told.items()))
