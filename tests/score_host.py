"""Scores a run in forked children, so that dozens of scorings can be killed in seconds: torch is imported once.

`python score_host.py FOLDER PLAN METRIC...`: FOLDER has `trial/` and `runs/` as in `test_evaluate_crash`. PLAN is a
JSON list; each entry is one scoring: {"at": "decoding" | "saving" | "saved", "batch": n} kills itself at its n-th
batch, before it is saved, with part of it written, or after; {"at": "scores", "write": n} before its n-th file of
scores; {"after": seconds} is killed from outside; {} runs to its end. "in" names a folder in FOLDER to work in. With
"processes": n it has that many decode, forked too, of which {"at": "decoding", "batch": n, "kill": "worker"} kills the
one with the n-th batch; "signal": 2 is Ctrl-C instead of a kill. What each decodes goes to the file `decoded`, a line a
batch. A process that outlives its scoring keeps the host from ending.
"""

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from epalm.cache.objects.durable import write_atomically
from epalm.cache.store import Cache
from epalm.children import end_with_parent
from epalm.cli.cached_source import open_features
from epalm.datasets import load_dataset
from epalm.evaluate import run as scoring
from epalm.evaluate import score_files
from epalm.evaluate.decoding import decode as decoding
from epalm.evaluate.decoding import decoding_processes, kept_predictions, spread
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.evaluate.decoding.decoding_child import serve
from epalm.samples import Modality, Prediction
from epalm.train.runs.loading import LoadedRun, load_run
from epalm.train.runs.run_folder import RunFolder

BATCH = 4
_STOPPED = 130
_ADOPT = 36  # PR_SET_CHILD_SUBREAPER: processes without a parent become the host's


class Forked:
    """A process that serves a pipe, with what is asked of a `Popen`."""

    def __init__(self, pipe: Any, threads: int) -> None:
        self.pid = os.fork()
        if not self.pid:
            end_with_parent()
            serve(pipe)
            os._exit(0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def score(run: LoadedRun, metrics: tuple[str, ...], processes: int) -> None:
    """As `epalm score` does, few samples at once."""
    told = run.inputs["features"]
    dataset = load_dataset("trial/world", Modality.IMAGE)
    samples = dataset.split("test")
    features = open_features(Cache("trial/cache"), told["set"], dataset, samples, told["layers"])
    decode = DecodeOptions(num_beams=1, max_length=14, batch_size=BATCH)
    several = decoding_processes.DecodingProcesses(processes)
    scoring.score_run(
        run,
        dataset,
        features,
        samples,
        split="test",
        expected=samples,
        modality="image",
        metrics=metrics,
        decode=decode,
        elsewhere=spread.Elsewhere(several, "best", "cpu") if processes > 1 else None,
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(entry: dict[str, Any]) -> None:
    """Note every batch, and put the moment of the kill into the functions that are there."""
    at, appends, writes, driver = entry.get("at"), [0], [0], os.getpid()
    batches = multiprocessing.Value("i", 0)
    decode, append, write = decoding.decode_batches, kept_predictions._append, write_atomically

    def decoded(*words: Any, **options: Any) -> Iterator[list[Prediction]]:
        for batch in decode(*words, **options):
            with batches.get_lock():
                batches.value += 1
                number = batches.value
            with Path("decoded").open("a") as file:
                file.write(json.dumps([one.id for one in batch]) + "\n")
            if at == "decoding" and number == entry["batch"]:
                os.kill(os.getpid() if entry.get("kill") == "worker" else driver, entry.get("signal", signal.SIGKILL))
            yield batch

    def appended(path: Path, lines: bytes) -> None:
        appends[0] += 1
        if at == "saving" and appends[0] == entry["batch"]:
            append(path, lines[: 2 * len(lines) // 3])
            _die()
        append(path, lines)
        if at == "saved" and appends[0] == entry["batch"]:
            _die()

    def written(path: Path, data: bytes) -> None:
        writes[0] += 1
        if at == "scores" and writes[0] == entry["write"]:
            _die()
        write(path, data)

    for module, name, armed in (
        (scoring, "decode_batches", decoded),
        (spread, "decode_batches", decoded),
        (decoding_processes, "start_child", Forked),
        (kept_predictions, "_append", appended),
        (score_files, "write_atomically", written),
        (scoring, "write_atomically", written),
    ):
        setattr(module, name, armed)


def main() -> None:
    """See the module."""
    ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0)
    os.chdir(sys.argv[1])
    plan, metrics = json.loads(sys.argv[2]), tuple(sys.argv[3:])
    run, results = load_run(RunFolder.find(Path("runs"), "a"), device="cpu"), []
    spread.__dict__["load_run"] = lambda *_, **__: run  # loaded once
    for entry in plan:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(entry.get("in", "."))
            _arm(entry)
            with suppress(KeyboardInterrupt):
                score(run, metrics, entry.get("processes", 1))
                os._exit(0)
            os._exit(_STOPPED)
        if "after" in entry:
            time.sleep(entry["after"])
            os.kill(child, signal.SIGKILL)
        results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        with suppress(ChildProcessError):
            while True:  # what the child has left behind
                os.wait()
    print(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
