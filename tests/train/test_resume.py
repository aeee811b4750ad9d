"""Killed at any moment, a training goes on as if nothing had happened: tensors, order of samples and metrics."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import train_host, trials
from tests.tiny_lms import save_lm

HOST = Path(train_host.__file__)
STEPS = train_host.STEPS


class Host:
    """Trains in forked children: see the program."""

    def __init__(self) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
        self._process = subprocess.Popen(
            [sys.executable, str(HOST)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, runs: Path, *plan: dict[str, Any]) -> tuple[list[int], str]:
        """What became of each training of the plan, and all that was said so far by those in the folder."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps([str(runs), plan]), file=self._process.stdin, flush=True)
        results: list[int] = json.loads(self._process.stdout.readline())
        return results, (runs / "said").read_text()

    def end(self) -> None:
        """Let it go."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    process = Host()
    yield process
    process.end()


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
def whole(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was never interrupted, as `whole` in this folder."""
    runs = tmp_path_factory.mktemp("runs")
    results, printed = host(runs, {"run": "whole"})
    assert results == [0], printed
    return runs


def _require_same(runs: Path, whole: Path, names: list[str]) -> None:
    expected = _outcome(whole, "whole")
    assert len(expected["order"]) == STEPS
    assert [line["step"] for line in expected["metrics"] if "val_loss" in line] == [5, 10, 12]
    for name in names:
        outcome = _outcome(runs, name)
        for key, value in expected.items():
            assert outcome[key] == value, (name, key)


def test_killed_in_every_step_and_gone_on_with_other_threads(host: Host, whole: Path, tmp_path: Path) -> None:
    names = [f"{step}" for step in range(1, STEPS + 1)]
    plan: list[dict[str, Any]] = [{"run": name, "at": int(name), "workers": 2 * (int(name) % 2)} for name in names]
    results, _ = host(tmp_path, *plan, *({"run": name, "workers": 2 - 2 * (int(name) % 2)} for name in names))
    assert results == [-9] * STEPS + [0] * STEPS
    _require_same(tmp_path, whole, names)


@pytest.mark.parametrize("saved", [1, 2, 5])
def test_killed_twice_in_an_epoch_and_at_its_borders(host: Host, saved: int, whole: Path, tmp_path: Path) -> None:
    """Steps 6 and 7 are of one epoch; 4 and 8 end one, 5 and 9 begin one. `saved`: steps between two checkpoints."""
    cadence = {"checkpoint.every_steps": saved}
    borders, done = [6, 7, 8, 9, 13], 0
    plan: list[dict[str, Any]] = []
    for step in borders:
        plan.append({"run": "a", "at": step - done, "workers": step % 3, **cadence})
        done = (step - 1) // saved * saved  # steps that are saved when step number `step` begins
    results, printed = host(tmp_path, *plan)
    assert results == [-9] * (len(borders) - 1) + [0], printed
    assert _order(tmp_path / "a.log") == _order(whole / "whole.log")
    latest = [trials.latest_tensors(runs / name) for runs, name in ((tmp_path, "a"), (whole, "whole"))]
    assert latest[0] == latest[1]
    assert _outcome(tmp_path, "a")["metrics"] == _outcome(whole, "whole")["metrics"]


def test_a_training_with_a_llama_goes_on_bit_by_bit(host: Host, tmp_path: Path) -> None:
    lm = {"lm.name": str(save_lm("llama", tmp_path / "lm"))}
    names = ["3", "6", "9", "12"]
    plan: list[dict[str, Any]] = [{"run": name, "at": int(name), "workers": int(name) % 2} for name in names]
    results, said = host(tmp_path, *({**entry, **lm} for entry in ({"run": "whole"}, *plan)))
    assert results == [0] + [-9] * len(names), said
    results, said = host(tmp_path, *({"run": name, **lm} for name in names))
    assert results == [0] * len(names), said
    _require_same(tmp_path, tmp_path, names)
    assert "Question: {question} Answer:" in (tmp_path / "3/config.toml").read_text()


@pytest.mark.parametrize(
    "drawing",
    [
        {"model.bridge": "random-tokens", "model.dropout": 0.2},
        {"model.bridge": "qp-inner", "bridge.inner_width": 8, "bridge.queries": 2},
        {"model.bridge": "cross-attention", "bridge.inner_width": 8},
    ],
)
def test_a_training_that_draws_in_every_step_goes_on_bit_by_bit(
    drawing: dict[str, Any], host: Host, tmp_path: Path
) -> None:
    """Which tokens are kept, and what dropout leaves out."""
    drawing = {**drawing, "optim.clip_norm": 0.5}
    names = ["3", "6", "9", "12"]
    whole = [{"run": "whole", **drawing}, {"run": "other", "optim.seed": 1, **drawing}]
    results, said = host(tmp_path, *whole, *({"run": name, "at": int(name), **drawing} for name in names))
    assert results == [0, 0] + [-9] * len(names), said
    results, said = host(tmp_path, *({"run": name, **drawing} for name in names))
    assert results == [0] * len(names), said
    _require_same(tmp_path, tmp_path, names)
    assert _outcome(tmp_path, "other")["tensors"] != _outcome(tmp_path, "whole")["tensors"]


def _disk_steps(runs: Path) -> int:
    return int((runs / "whole.steps").read_text())


def test_killed_again_and_again_while_it_writes(host: Host, whole: Path, tmp_path: Path) -> None:
    """One after the other in one run: what a kill leaves is what the next finds."""
    plan: list[dict[str, Any]] = [{"run": "a", "disk": step} for step in range(0, _disk_steps(whole), 17)]
    results, printed = host(tmp_path, *plan, {"run": "a"})
    assert results.count(-9) > 5 and set(results) == {-9, 0} and results[-1] == 0, printed
    _require_same(tmp_path, whole, ["a"])


@pytest.mark.slow
def test_killed_at_each_step_of_writing(host: Host, tmp_path: Path) -> None:
    """Of a shorter training, with checkpoints that are the best and such that are not, and some that are taken away."""
    short = {"optim.max_steps": 3, "checkpoint.every_steps": 1, "eval.every_steps": 2}
    assert host(tmp_path, {"run": "whole", **short})[0] == [0]
    steps = _disk_steps(tmp_path)
    assert steps > 100
    names = [f"{step}" for step in range(0, steps, 2)]  # before each call: behind it, the disk is as before the next
    assert host(tmp_path, *({"run": name, "disk": int(name), **short} for name in names))[0] == [-9] * len(names)
    assert host(tmp_path, *({"run": name, **short} for name in names))[0] == [0] * len(names)
    for name in names:
        assert _outcome(tmp_path, name) == _outcome(tmp_path, "whole"), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(host: Host, number: int, whole: Path, tmp_path: Path) -> None:
    plan: list[dict[str, Any]] = [{"run": "a", "at": 7, "signal": number, "checkpoint.every_steps": 100}]
    results, printed = host(tmp_path, *plan)
    assert results == [128 + number], printed
    assert "the same command goes on" in printed and "Traceback" not in printed
    assert (tmp_path / "a/checkpoints/latest").read_text() == "step-7\n"
    assert host(tmp_path, {"run": "a"})[0] == [0]
    assert len((tmp_path / "a.log").read_text().splitlines()) == STEPS + 2  # no step was taken twice
    _require_same(tmp_path, whole, ["a"])
