"""A training in several processes is the training in one; killed, stopped or faulty, it ends and goes on as one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from epalm.errors import UsageError
from epalm.recipes.config import load_config
from epalm.train.lm.load import require_shardable
from epalm.train.lm.processes import Processes
from tests import process_host
from tests.conftest import Epalm
from tests.process_host import STEPS
from tests.tiny_lms import save_lm

pytestmark = pytest.mark.slow  # for the fixture that most of them share
HOST = Path(process_host.__file__)
SHORT = ("--set", "optim.max_steps=3", "--set", "optim.batch_size=5", "--set", "data.val_split=test")
CLI = ("train", "--from-cache", "--recipe", "playground", "--device", "cpu", *SHORT, "--json")
# One module for all blocks. The bias of its keys has no effect: with a small ε AdamW would make steps of rounding.
CROSSING = {
    "model.bridge": "cross-attention", "bridge.inner_width": 8, "bridge.dropout": 0.0, "optim.adam_eps": 1e-4,
}  # fmt: skip
SCENARIOS: list[dict[str, Any]] = [
    {"run": "one", "count": 1},
    {"run": "two", "workers": 2},
    {"run": "three", "count": 3},
    {"run": "parts of two", "optim.micro_batches": 2},
    {"run": "sharded", "workers": 1, "sharded": True},
    {"run": "llama", "count": 1, "lm.name": "lm"},
    {"run": "llama, two", "lm.name": "lm"},
    {"run": "llama, sharded", "lm.name": "lm", "sharded": True},
    {"run": "crossing", "count": 1, **CROSSING},
    {"run": "crossing, two", **CROSSING},
    {"run": "killed", "at": 23, "kill": [0, 1]},
    {"run": "killed", "at": 7, "signal": 1},  # of the steps after the checkpoint of step 20
    {"run": "killed"},
    {"run": "one dies", "at": 7, "kill": [1]},
    {"run": "one fails", "at": 7, "fail": 1},
    {"run": "command", "command": [*CLI, "--run", "command"]},
    {"run": "sharded command", "command": [*CLI, "--run", "sharded command", "--shard-lm"]},
    {"run": "fault", "command": [*CLI, "--set", "optim.epochs=none"]},
]


@dataclass(frozen=True)
class Outcome:
    """The run folders, and what became of each scenario's processes."""

    runs: Path
    codes: dict[str, list[list[int]]]

    def tensors(self, run: str) -> dict[str, torch.Tensor]:
        return load_file(self.runs / run / f"checkpoints/step-{STEPS}/trainable.safetensors")

    def losses(self, run: str, rank: int = 0) -> list[float]:
        return [float(line) for line in (self.runs / f"{run}.{rank}.losses").read_text().splitlines()]

    def metrics(self, run: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.runs / run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    def shown(self, run: str, rank: int = 0) -> str:
        return (self.runs / f"{run}.{rank}.txt").read_text()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, extracted_pictures: Path) -> Outcome:
    """All scenarios, one after another, from one process that imports torch once."""
    runs = tmp_path_factory.mktemp("runs")
    save_lm("llama", runs / "lm")
    environment = dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TORCH_CPP_LOG_LEVEL="ERROR")
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "EPALM_RUNS": "."}
    environment["EPALM_CACHE"] = str(extracted_pictures / "cache")
    words = [sys.executable, str(HOST), str(runs), json.dumps(SCENARIOS)]
    ended = subprocess.run(words, env=environment, cwd=runs, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    codes: dict[str, list[list[int]]] = {}
    for scenario, became in zip(SCENARIOS, json.loads(ended.stdout.splitlines()[-1]), strict=True):
        codes.setdefault(scenario["run"], []).append(became)
    return Outcome(runs, codes)


@pytest.mark.parametrize(
    "run", ["two", "three", "parts of two", "sharded", "llama, two", "llama, sharded", "crossing, two"]
)
def test_however_a_step_is_divided_it_is_the_same_step(done: Outcome, run: str) -> None:
    """Steps of 4, 4, 4 and 1 samples: in the last some processes have none."""
    assert {code for codes in done.codes[run] for code in codes} == {0}, done.shown(run)
    one = run.split(",", maxsplit=1)[0] if "," in run else "one"
    expected = done.losses(one)
    assert len(expected) == STEPS and len(set(expected)) == STEPS
    torch.testing.assert_close(torch.tensor(done.losses(run)), torch.tensor(expected), atol=1e-5, rtol=1e-6)
    tensors = done.tensors(one)
    assert done.tensors(run).keys() == tensors.keys()
    for name, tensor in done.tensors(run).items():
        torch.testing.assert_close(tensor, tensors[name], atol=1e-4, rtol=0)
    for ours, theirs in zip(done.metrics(run), done.metrics(one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_every_process_knows_the_same_loss_and_the_first_alone_speaks(done: Outcome) -> None:
    assert done.losses("three", 1) == done.losses("three", 2) == done.losses("three", 0)
    assert f"train: {STEPS}/{STEPS} steps" in done.shown("three")
    assert done.shown("three", 1) == done.shown("three", 2) == ""


def test_one_process_told_to_stop_stops_all_after_the_same_step(done: Outcome) -> None:
    assert done.codes["killed"][1] == [130, 143], done.shown("killed")
    shown = done.shown("killed")
    assert (
        "stopped and saved" in shown and f"going on after step 27 of {STEPS}" in shown and done.shown("killed", 1) == ""
    )


def test_killed_and_stopped_two_processes_go_on_bit_by_bit_with_other_threads(done: Outcome) -> None:
    """`two` was not interrupted, and had two threads put its batches together; `killed` had none."""
    assert [done.codes["killed"][part] for part in (0, 2)] == [[-9, -9], [0, 0]]
    folders = [done.runs / name / f"checkpoints/step-{STEPS}" for name in ("killed", "two")]
    for part in ("trainable", "optimiser"):
        ours, theirs = ((folder / f"{part}.safetensors").read_bytes() for folder in folders)
        assert ours == theirs, part
    assert done.metrics("killed") == done.metrics("two")


def test_one_that_dies_ends_the_others_with_one_message(done: Outcome) -> None:
    assert done.codes["one dies"] == [[1, -9]]
    assert done.shown("one dies").count("error: ") == 1 and "another process" in done.shown("one dies")


def test_a_fault_of_one_is_told_once_and_ends_all(done: Outcome) -> None:
    assert done.codes["one fails"] == [[1, 1]]
    shown = done.shown("one fails"), done.shown("one fails", 1)
    assert shown[1].strip() == "error: process 1 of 2: the oil lamp is out\n  → fill it"
    assert "error" not in shown[0] and "Traceback" not in shown[0]


def test_the_command_in_two_processes_leaves_one_run(done: Outcome) -> None:
    assert done.codes["command"] == [[0, 0]], done.shown("command")
    (summary,) = [json.loads(line) for line in done.shown("command").splitlines() if line.startswith("{")]
    assert summary["steps"] == 3 and done.shown("command", 1) == ""


def test_a_fault_of_all_is_told_once(done: Outcome) -> None:
    assert done.codes["fault"] == [[1, 1]]
    assert (done.shown("fault") + done.shown("fault", 1)).count("error: ") == 1


def test_a_divided_language_model_gives_the_same_losses(done: Outcome) -> None:
    """The second process never had its weights: it had their shapes, and its share."""
    assert done.codes["sharded command"] == [[0, 0]], done.shown("sharded command")
    for ours, theirs in zip(done.metrics("sharded command"), done.metrics("command"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "count", "fault"),
    [
        (["lm.train=true"], 2, "only frozen ones"),
        (["model.adapters=lora"], 2, "inside the blocks"),
        (["lm.quantized=8bit"], 2, "8bit weights"),
        ([], 1, "there is one"),
    ],
)
def test_what_cannot_be_divided_is_refused(settings: list[str], count: int, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        require_shardable(load_config("playground", settings), Processes(0, count))


@pytest.mark.parametrize(
    ("variables", "device", "fault"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "one"}, "cpu", "RANK is 'one'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cuda:1", "cannot be every process's"),
    ],
)
def test_what_a_launcher_says_is_checked(
    epalm: Epalm, variables: dict[str, str], device: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = epalm("train", "--from-cache", "--device", device)
    assert done.code == 1 and fault in done.err and done.err.count("error: ") == 1


TORCHRUN = "torch.distributed.run --nproc-per-node 2"
ACCELERATE = (
    # As on a machine with two GPUs: without one it would start a single process.
    "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
)


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_the_launchers_as_typed(launcher: str, extracted_pictures: Path, tmp_path: Path) -> None:
    """`torchrun` and `accelerate launch` are these modules."""
    words = [sys.executable, "-m", *launcher.split(), "-m", "epalm", *CLI, "--no-canary"]
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    environment["EPALM_CACHE"] = str(extracted_pictures / "cache")
    ended = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (summary,) = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert summary["steps"] == 3
    (state,) = (tmp_path / ".epalm/runs").glob("*/checkpoints/step-3/state.json")
    assert json.loads(state.read_text())["processes"] == 2
