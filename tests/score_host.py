"""Scores a run in forked children, so that dozens of scorings can be killed in seconds: torch is imported once.

`python score_host.py FOLDER PLAN METRIC...`: FOLDER has `trial/` and `runs/` as in `test_crash`. PLAN is a JSON list;
each entry is one scoring: {"at": "decoding" | "saving" | "saved", "batch": n} kills itself at its n-th batch, before it
is saved, with part of it written, or after; {"at": "scores", "write": n} before its n-th file of scores;
{"after": seconds} is killed from outside; {} runs to its end. "in" names a folder in FOLDER to work in. With
"processes": n it has that many Dask workers decode, forked too, of which {"at": "decoding", "batch": n,
"kill": "worker"} kills the one with the n-th batch; "signal": 2 is Ctrl-C instead of a kill. What each decodes goes to
the file `decoded`, a line a batch. A process that outlives its scoring keeps the host from going on.
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from epalm import dask_engine
from epalm.cache.objects.durable import write_atomically
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.evaluate import run as scoring
from epalm.evaluate import score_files
from epalm.evaluate.decoding import decode as decoding
from epalm.evaluate.decoding import predictions, remote
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.samples import Modality, Prediction
from epalm.train.data.features import CachedFeatures
from epalm.train.runs.loading import LoadedRun, load_run
from epalm.train.runs.run_folder import RunFolder

BATCH = 4
_STOPPED = 130


def score(run: LoadedRun, metrics: tuple[str, ...], processes: int) -> None:
    """As `epalm score` does, few samples at once."""
    recorded = run.inputs["features"]
    dataset = load_dataset("trial/world", Modality.IMAGE)
    samples = dataset.split("test")
    features = CachedFeatures(Cache("trial/cache"), recorded["set"], dataset, samples, recorded["layers"])
    decode = DecodeOptions(num_beams=1, max_length=14, batch_size=BATCH)
    asked, path = predictions.what_decides(run, features, samples, decode, "test")
    plan = scoring.ScorePlan(
        run,
        features,
        decode,
        about={"data": "trial/world", "split": "test", "limit": None},
        there=samples,
        expected=samples,
        asked=asked,
        path=path,
        metrics=metrics,
        decoder=_decoder(processes) if processes > 1 else decoding.decode_samples,
    )
    scoring.execute_score(plan)


def _decoder(processes: int) -> Any:
    return partial(remote.decode_remotely, dask_engine.Cluster(processes=processes), "best", "cpu")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def noted(entry: dict[str, Any], driver: int, before: int, folder: str) -> Callable[..., Iterator[list[Prediction]]]:
    """`decode_batches` that notes every batch, and kills whom the entry names; `before` it the folder has batches."""
    decode = decoding.decode_batches

    def decoded(*words: Any, **options: Any) -> Iterator[list[Prediction]]:
        for batch in decode(*words, **options):
            with Path(folder, "decoded").open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(json.dumps([one.id for one in batch]) + "\n")
                file.seek(0)
                number = len(file.readlines()) - before
            if entry.get("at") == "decoding" and number == entry["batch"]:
                os.kill(os.getpid() if entry.get("kill") == "worker" else driver, entry.get("signal", signal.SIGKILL))
            yield batch

    return decoded


def arm_worker(*words: Any) -> None:
    """In a worker, before its first task."""
    vars(remote)["decode_batches"] = noted(*words)


def _arm(entry: dict[str, Any]) -> None:
    """Note every batch, and put the moment of the kill into the functions that are there."""
    at, appends, writes = entry.get("at"), [0], [0]
    notes = Path("decoded")
    recorded = (entry, os.getpid(), len(notes.read_text().splitlines()) if notes.exists() else 0, str(Path.cwd()))
    append, write = predictions._append, write_atomically
    dask_engine._WORKER_STARTS_WITH += f"; from tests.score_host import arm_worker; arm_worker(*{recorded!r})"

    def appended(path: Path, lines: Sequence[bytes]) -> None:
        appends[0] += 1
        if at == "saving" and appends[0] == entry["batch"]:
            whole = b"".join(lines)
            append(path, [whole[: 2 * len(whole) // 3]])
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
        (decoding, "decode_batches", noted(*recorded)),
        (predictions, "_append", appended),
        (score_files, "write_atomically", written),
    ):
        setattr(module, name, armed)


def _fork_workers() -> int:
    """Have Dask workers forked from a process that is forked itself, with all that it has imported; its number."""
    import dask

    def forked(_: Any, words: list[str], descriptors: list[int]) -> int:
        if pid := os.fork():
            return pid
        for descriptor in {int(path.name) for path in Path("/proc/self/fd").iterdir()} - {0, 1, 2, *descriptors}:
            with suppress(OSError):
                os.close(descriptor)
        exec(words[-1])
        os._exit(0)

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    server: Any = forkserver._forkserver
    with patch("multiprocessing.util.spawnv_passfds", forked):
        server.ensure_running()
    server.ensure_running = lambda: None  # the children of this process use it too
    return int(server._forkserver_pid)


def main() -> None:
    """See the module."""
    os.chdir(sys.argv[1])
    plan, metrics = json.loads(sys.argv[2]), tuple(sys.argv[3:])
    import distributed  # noqa: F401 (for who is forked)

    run, results = load_run(RunFolder.find(Path("runs"), "a"), device="cpu"), []
    server = _fork_workers()
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
        while Path(f"/proc/{server}/task/{server}/children").read_text():  # workers that the child has left behind
            time.sleep(0.01)
    print(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
