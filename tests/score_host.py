"""Scores a run in forked children, so that dozens of scorings can be killed in seconds: torch is imported once.

`python score_host.py FOLDER PLAN METRIC...`: FOLDER has `trial/` and `runs/` as in `test_evaluate_crash`. PLAN is a
JSON list; each entry is one scoring: {"at": "decoding" | "saving" | "saved", "batch": n} kills itself at its n-th
batch, before it is saved, with part of it written, or after; {"at": "scores", "write": n} before its n-th file of
scores; {"after": seconds} is killed from outside; {} runs to its end. "in" names a folder in FOLDER to work in. What
each decodes goes to the file `decoded`, a line a batch.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from epalm.cache.durable import write_atomically
from epalm.cache.store import Cache
from epalm.cli.cached_source import open_features
from epalm.datasets import load_dataset
from epalm.evaluate import decoding, score_files
from epalm.evaluate import run as scoring
from epalm.evaluate.decode_options import DecodeOptions
from epalm.samples import Modality, Prediction
from epalm.train.loading import LoadedRun, load_run
from epalm.train.run_folder import RunFolder

BATCH = 4


def score(run: LoadedRun, metrics: tuple[str, ...]) -> None:
    """As `epalm score` does, few samples at once."""
    told = run.inputs["features"]
    dataset = load_dataset("trial/world", Modality.IMAGE)
    samples = dataset.split("test")
    features = open_features(Cache("trial/cache"), told["set"], dataset, samples, told["layers"])
    decode = DecodeOptions(num_beams=1, max_length=14, batch_size=BATCH)
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
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(entry: dict[str, Any]) -> None:
    """Note every batch, and put the moment of the kill into the functions that are there."""
    at, batches, writes = entry.get("at"), [0], [0]
    decode, append, write = decoding.decode_batches, decoding._append, write_atomically

    def decoded(*words: Any, **options: Any) -> Iterator[list[Prediction]]:
        for batch in decode(*words, **options):
            batches[0] += 1
            with Path("decoded").open("a") as file:
                file.write(json.dumps([one.id for one in batch]) + "\n")
            if at == "decoding" and batches[0] == entry["batch"]:
                _die()
            yield batch

    def appended(path: Path, lines: bytes) -> None:
        if at == "saving" and batches[0] == entry["batch"]:
            append(path, lines[: 2 * len(lines) // 3])
            _die()
        append(path, lines)
        if at == "saved" and batches[0] == entry["batch"]:
            _die()

    def written(path: Path, data: bytes) -> None:
        writes[0] += 1
        if at == "scores" and writes[0] == entry["write"]:
            _die()
        write(path, data)

    for module, name, armed in (
        (scoring, "decode_batches", decoded),
        (decoding, "_append", appended),
        (score_files, "write_atomically", written),
        (scoring, "write_atomically", written),
    ):
        setattr(module, name, armed)


def main() -> None:
    """See the module."""
    os.chdir(sys.argv[1])
    plan, metrics = json.loads(sys.argv[2]), tuple(sys.argv[3:])
    run, results = load_run(RunFolder.find(Path("runs"), "a"), device="cpu"), []
    for entry in plan:
        child = os.fork()
        if not child:
            torch.set_num_threads(1)
            os.chdir(entry.get("in", "."))
            _arm(entry)
            score(run, metrics)
            os._exit(0)
        if "after" in entry:
            time.sleep(entry["after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        results.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    print(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
