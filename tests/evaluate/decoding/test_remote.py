"""Predictions from Dask workers, here or elsewhere, are those of one process, whatever happens to the workers.

That they and their driver may be killed at any moment: see `test_crash`.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm import dask_engine
from epalm.dask_engine import Cluster, device_of_worker
from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.evaluate.decoding.remote import Decoder, Job, decode_remotely
from epalm.samples import Modality, Sample, Task
from epalm.train.bridge.build import ONE_TOKEN
from epalm.train.runs.loading import load_run
from epalm.train.runs.run_folder import RunFolder
from tests.dask_workers import Workers, forked_workers
from tests.scored_run import files_of, train_one
from tests.trials import Trial

SCORE = ("score", "--runs", "runs", "--cache", "trial/cache", "--metrics", "exact match", "--json")
OPTIONS = DecodeOptions(num_beams=1, max_length=14, batch_size=4)
JOB = Job("", "best", "", "", "cpu", OPTIONS)


class Zeros:
    """Features of nothing."""

    layers, width, layout = 3, 24, ONE_TOKEN

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        return np.zeros((len(samples), self.layers, 1, self.width), np.float16)

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        return [""] * len(samples)

    def describe(self) -> dict[str, Any]:
        return {}


def _caption(name: str) -> Sample:
    return Sample(name, Modality.IMAGE, "m", Task.CAPTION, "test")


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[int]]]:
    """Have workers of this machine start fast; gives the processes of those that were started."""
    clusters: list[Any] = []
    with forked_workers():
        from distributed import LocalCluster

        class Noted(LocalCluster):
            def __init__(self, **words: Any) -> None:
                super().__init__(**words)
                clusters.append([nanny.pid for nanny in self.workers.values()])

        monkeypatch.setattr("distributed.LocalCluster", Noted)
        yield lambda: [pid for started in clusters for pid in started]


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_as_typed_workers_go_on_where_one_process_was(
    trial: Trial, tmp_path: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch, pids: Any
) -> None:
    rows = trial.samples
    trial.samples = [{**row, "id": f"once-{row['id']}"} if row["split"] == "test" else row for row in rows]
    train_one(trial)
    alone = trial.epalm(*SCORE)
    whole = files_of(tmp_path)
    (path,) = (tmp_path / "runs/a/predictions").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(b"".join(lines[:-4]))
    done = trial.epalm(*SCORE, "--processes", 2)
    assert (alone.code, done.code) == (0, 0), done.err
    assert files_of(tmp_path) == whole
    assert json.loads(done.out) == json.loads(alone.out)
    assert "dask: 2 workers" in done.err and "distributed" not in done.err
    assert len(pids()) == 2 and not any(map(_alive, pids()))

    path.write_bytes(b"".join(lines[:3]))
    done = trial.epalm(*SCORE, "--engine", "dask", "--scheduler", dask_workers.address, "--batch-size", 4)
    assert done.code == 0, done.err
    assert (tmp_path / "runs/a/died").exists()  # of one of the workers
    assert files_of(tmp_path) == whole
    assert json.loads(done.out) == json.loads(alone.out)
    assert "dask: 2 workers" in done.err and "Traceback" not in done.err

    there = partial(decode_remotely, Cluster(dask_workers.address), "best", "cpu")
    run = load_run(RunFolder(tmp_path / "runs/a"), empty=True)
    monkeypatch.setattr("epalm.dask_engine._MOST_TRIES", 1)
    with pytest.raises(EpalmError, match="all workers that decoded the 1 samples from deadly on died") as caught:
        list(there(run, Zeros(), [_caption("deadly")], OPTIONS))
    assert "the same command goes on" in str(caught.value.hint)

    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"^on {os.uname().nodename}: .*/runs/a is no run folder here") as lost:
        list(there(run, Zeros(), [_caption("deadly")], OPTIONS))
    assert "where all machines reach it" in str(lost.value.hint)


_RISKY = """
import os, signal
from epalm.evaluate.decoding import remote
from epalm.samples import Prediction

class Risky:
    def __init__(self, job, number): pass

    def close(self): pass

    def run(self, task, threads):
        names = [sample.id for sample in task.samples]
        if any(name.startswith("deadly") for name in names):
            os.kill(os.getpid(), signal.SIGKILL)
        if "buggy" in names:
            raise ValueError("who knows")
        return [Prediction(name, str(os.getpid())) for name in names]

remote.Decoder = Risky
"""


def test_deaths_are_told_and_nobody_is_left(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pids: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train_one(trial)
    run = load_run(RunFolder(tmp_path / "runs/a"), empty=True)
    monkeypatch.setattr(dask_engine, "_WORKER_STARTS_WITH", dask_engine._WORKER_STARTS_WITH + _RISKY)
    here = partial(decode_remotely, Cluster(processes=2), "best", "cpu")
    names = [f"s{number}" for number in range(20)]
    one_each = replace(OPTIONS, batch_size=1)

    decoded = [one for batch in here(run, Zeros(), list(map(_caption, names)), one_each) for one in batch]
    assert sorted(one.id for one in decoded) == sorted(names)
    assert {int(one.text) for one in decoded} <= set(pids())  # none has died

    with pytest.raises(EpalmError, match="all workers that decoded the 1 samples from deadly on died") as caught:
        list(here(run, Zeros(), [_caption("deadly")], one_each))
    assert "fewer --processes or a smaller --batch-size" in str(caught.value.hint)
    message = capsys.readouterr().err
    assert message.count("a worker died, and its task is given to another") == 2 and "try 3 of 3" in message

    with pytest.raises(ValueError, match="who knows"):
        list(here(run, Zeros(), [_caption("buggy")], one_each))

    stopped = here(run, Zeros(), list(map(_caption, names)), one_each)
    assert len(next(stopped)) == 1
    stopped.close()
    assert len(pids()) == 8 and not any(map(_alive, pids()))


def test_workers_that_never_come_up(trial: Trial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pids: Any) -> None:
    train_one(trial)
    run = load_run(RunFolder(tmp_path / "runs/a"), empty=True)
    monkeypatch.setattr(dask_engine, "_WORKER_STARTS_WITH", "import os; os._exit(3)")
    with pytest.raises(EpalmError, match="worker processes cannot be started"):
        list(decode_remotely(Cluster(), "best", "cpu", run, Zeros(), [_caption("a")], OPTIONS))


def test_each_takes_a_gpu_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for number, device in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")):
        assert device_of_worker("auto", number) == device_of_worker("cuda", number) == device
        assert device_of_worker("cuda:1", number) == "cuda:1" and device_of_worker("cpu", number) == "cpu"
    assert device_of_worker("auto", None) == "auto"  # dask-cuda shows each worker one


def test_another_run_than_the_driver_has(trial: Trial, tmp_path: Path) -> None:
    train_one(trial)
    with pytest.raises(UsageError, match="holds other tensors or settings here"):
        Decoder(replace(JOB, run=str(tmp_path / "runs/a"), lm="playground", digest="other"), None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "ray"), "--engine 'ray' is unknown"),
        (("--scheduler", "tcp://x:1"), "--scheduler is for --engine dask"),
        (("--engine", "dask", "--processes", 2), "--processes is for --engine local"),
        (("--predictions", "x.json", "--data", "y", "--processes", 2), "--processes does not go with --predictions"),
    ],
)
def test_options_that_do_not_go_together(epalm: Any, words: tuple[object, ...], message: str) -> None:
    done = epalm("score", *words)
    assert done.code == 1
    assert f"error: {message}" in done.err and "Traceback" not in done.err
