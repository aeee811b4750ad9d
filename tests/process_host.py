"""Runs small trainings in several processes each, all forked from one that has imported torch.

`python process_host.py RUNS PLAN`: PLAN is a JSON list; each entry is done by `count` processes [2] that meet as a
launcher's would. {"run": name} trains a tiny model in RUNS/name from where that stands, with "command": [...] it is an
epalm command line. Other keys of a run: "workers"; "sharded"; "at": n with "kill": ranks, "signal": rank or "fail":
rank, in the n-th step; settings. What the processes print goes to RUNS/name.RANK.txt, their losses by step to
RUNS/name.RANK.losses, what became of them is printed as JSON.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer

from epalm.errors import EpalmError
from epalm.recipes.config import load_config
from epalm.samples import Dataset, Modality
from epalm.train import loop, run, setup
from epalm.train.lm.processes import ALONE, Processes, joined
from epalm.train.material import Material
from epalm.train.request import TrainRequest
from epalm.train.runs.run_folder import RunFolder
from tests import train_host

STEPS, SAMPLES = 30, 13  # batches of 4, 4, 4 and 1: the last one has no row for a second process
SETTINGS = (*train_host.SETTINGS, "optim.epochs=13", f"optim.max_steps={STEPS}", "checkpoint.every_steps=20")


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    own = setup.__dict__["load_lm"], setup.__dict__["load_text_format"]
    train_host.patch_language_model()
    patched = setup.__dict__["load_lm"], setup.__dict__["load_text_format"]
    runs, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
    results = []
    for entry in plan:
        setup.__dict__["load_lm"], setup.__dict__["load_text_format"] = own if "command" in entry else patched
        results.append(_results(entry, runs))
    print(json.dumps(results))


def _results(entry: dict[str, Any], runs: Path) -> list[int]:
    """What became of each process: its exit code, or minus the signal that ended it."""
    count = entry.get("count", 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            names = {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
            _be(entry, runs, rank)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return [-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) for status in statuses]


def _be(entry: dict[str, Any], runs: Path, rank: int) -> None:
    """Do an entry's work in this process, and end it."""
    name = entry["run"]
    printed = os.open(runs / f"{name}.{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.argv = ["epalm", *entry.get("command", ["train"])]
    if "command" not in entry:
        _replace_command(entry, runs)
    from epalm.__main__ import main as epalm

    code = 70
    try:
        epalm()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except typer.Exit as ended:  # of a command that no app runs
        code = ended.exit_code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _replace_command(entry: dict[str, Any], runs: Path) -> None:
    """In place of `epalm train`: the tiny training, in the same processes."""
    from epalm.cli import app
    from epalm.cli.train import until_stopped

    def started(**_: Any) -> None:
        with joined("cpu") as (processes, device):
            _watch(entry, processes, runs)
            loaded = load(entry, processes, device)
            (runs / entry["run"]).mkdir(exist_ok=True)
            code = until_stopped(lambda stop: run.train(loaded, RunFolder(runs / entry["run"]), stop=stop))[1]
        if code:
            raise typer.Exit(code)

    app.app = started  # type: ignore[assignment]


def load(entry: dict[str, Any], processes: Processes = ALONE, device: str = "cpu") -> setup.Setup:
    """The tiny training of an entry, everything loaded."""
    config = load_config("playground", [*SETTINGS, *(f"{key}={value}" for key, value in entry.items() if "." in key)])
    dataset = Dataset("numbers", Path(), train_host.samples("train", SAMPLES))
    request = TrainRequest(device=device, workers=entry.get("workers", 0), shard_lm=entry.get("sharded", False))
    parts = (dataset.samples, train_host.samples("val", 6))
    material = Material(request, config, dataset, Modality.IMAGE, train_host.Numbered(), *parts)
    return setup.set_up(material, processes=processes)


def _watch(entry: dict[str, Any], processes: Processes, runs: Path) -> None:
    """Write every step's loss down; do what the entry says in the step `at`."""
    step: Callable[..., Any] = loop.__dict__["take_step"]
    seen = 0

    def take(*words: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == entry.get("at"):
            if processes.rank in entry.get("kill", []):
                os.kill(os.getpid(), signal.SIGKILL)
            if processes.rank == entry.get("signal"):
                os.kill(os.getpid(), signal.SIGTERM)
            if processes.rank == entry.get("fail"):
                raise EpalmError("the oil lamp is out", hint="fill it")
        stepped = step(*words, **options)
        with (runs / f"{entry['run']}.{processes.rank}.losses").open("a") as file:
            file.write(f"{float(stepped[0])!r}\n")
        return stepped

    loop.__dict__["take_step"] = take


if __name__ == "__main__":
    main()
