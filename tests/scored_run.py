"""A trained run with some dozens of samples to score, and what a scoring of it, killed or not, leaves behind."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import score_host
from tests.trials import Trial

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=2", "--set", "optim.batch_size=4")


_TRAINED: "list[tempfile.TemporaryDirectory[str]]" = []  # the runs of the first call, for all others of this process


def train_one(trial: Trial) -> None:
    """The run `a` in `runs` of the working folder, and more samples to score it on: other questions, equal captions."""
    rows = trial.samples
    asked = [row for row in rows if row["split"] == "test"]
    trial.samples = rows + [
        {**row, "id": f"{row['id']}-{word}"} | ({"prompt": f"{word} {row['prompt']}"} if row["task"] == "qa" else {})
        for word in ("now", "and")
        for row in asked
    ]
    if not _TRAINED:
        words = ("--from-cache", "-m", "image", "--data", "trial/world", "--cache", "trial/cache", "--runs", "runs")
        done = trial.epalm("train", *words, "--run", "a", "--set", "decode.max_length=14", *SHORT)
        assert done.code == 0, done.err
        _TRAINED.append(tempfile.TemporaryDirectory())
        shutil.copytree("runs", Path(_TRAINED[0].name, "runs"))
    elif not Path("runs").exists():
        shutil.copytree(Path(_TRAINED[0].name, "runs"), "runs")


def scorings(folder: Path, plan: list[dict[str, Any]], metrics: tuple[str, ...]) -> list[int]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, score_host.__file__, str(folder), json.dumps(plan), *metrics]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    results: list[int] = json.loads(done.stdout.splitlines()[-1])
    return results


def files_of(folder: Path) -> dict[str, bytes]:
    """Predictions, in no order, and scores, byte by byte; what a kill left of a draft is no part of them."""
    run = folder / "runs/a"
    paths = [run / "scores.json", *run.glob("predictions/*"), *run.glob("scores/*")]
    files = {str(path.relative_to(run)): path.read_bytes() for path in paths if not path.name.startswith(".")}
    return {name: _in_order(data) if name.startswith("predictions") else data for name, data in files.items()}


def _in_order(lines: bytes) -> bytes:
    return b"".join(sorted(lines.splitlines(keepends=True)))


def batches_of(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "decoded").read_text().splitlines()]


def copy_of(here: Path, name: str = "whole") -> Path:
    """The same, to be scored in another way, with {"in": name}: by default without a kill."""
    folder = here / name
    folder.mkdir()
    for part in ("trial", "runs"):
        shutil.copytree(here / part, folder / part)
    return folder
