"""Killed at any moment, a training goes on as if nothing had happened: tensors, order of samples and metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import train_host

HOST = Path(train_host.__file__)
STEPS = train_host.STEPS


def _host(runs: Path, plan: list[dict[str, Any]]) -> tuple[list[int], str]:
    """What became of each training of the plan, and all that they said."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, str(HOST), str(runs), json.dumps(plan)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    results: list[int] = json.loads(done.stdout.splitlines()[-1])
    return results, done.stderr


def _order(log: Path) -> dict[int, Any]:
    """Step → the samples and ids that it was given; a step that was taken twice was given the same."""
    order: dict[int, Any] = {}
    step = 0
    for line in log.read_text().splitlines():
        value = json.loads(line)
        if isinstance(value, int):
            step = value
            continue
        step += 1
        assert order.setdefault(step, value) == value, step
    return order


def _outcome(runs: Path, name: str) -> dict[str, Any]:
    """All that a training leaves, wall-clock times left out."""
    run = runs / name
    checkpoints = run / "checkpoints"
    tensors = {path.relative_to(run).as_posix(): path.read_bytes() for path in checkpoints.rglob("*.safetensors")}
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    states = [json.loads(path.read_text()) for path in sorted(checkpoints.glob("*/state.json"))]
    timed = ("seconds", "digest", "metrics_bytes")  # the last: figures of seconds have more or fewer digits
    return {
        "files": sorted(path.relative_to(run).as_posix() for path in run.rglob("*")),
        "tensors": tensors,
        "pointers": [(checkpoints / kind).read_text() for kind in ("best", "latest")],
        "metrics": [{key: value for key, value in line.items() if key != "seconds"} for line in metrics],
        "states": [{key: value for key, value in state.items() if key not in timed} for state in states],
        "order": _order(runs / f"{name}.log"),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was never interrupted, as `whole` in this folder."""
    runs = tmp_path_factory.mktemp("runs")
    assert _host(runs, [{"run": "whole"}])[0] == [0]
    return runs


def _require_same(runs: Path, whole: Path, names: list[str]) -> None:
    expected = _outcome(whole, "whole")
    assert len(expected["order"]) == STEPS
    assert [line["step"] for line in expected["metrics"] if "val_loss" in line] == [5, 10, 12]
    for name in names:
        outcome = _outcome(runs, name)
        for key, value in expected.items():
            assert outcome[key] == value, (name, key)


def test_killed_in_every_step(whole: Path, tmp_path: Path) -> None:
    names = [f"{step}" for step in range(1, STEPS + 1)]
    plan: list[dict[str, Any]] = [{"run": name, "forward": int(name)} for name in names]
    results, _ = _host(tmp_path, plan + [{"run": name} for name in names])
    assert results == [-9] * STEPS + [0] * STEPS
    _require_same(tmp_path, whole, names)
