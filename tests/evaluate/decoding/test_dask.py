"""Predictions from a Dask cluster are those of one process, whatever happens to the workers."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.dask_decoding import DaskDecoding
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.evaluate.decoding.spread import Elsewhere
from epalm.samples import Modality, Sample, Task
from epalm.train.runs.loading import load_run
from epalm.train.runs.run_folder import RunFolder
from tests.dask_workers import Workers
from tests.scored_run import files_of, train_one
from tests.trials import Trial

SCORE = ("score", "--runs", "runs", "--cache", "trial/cache", "--metrics", "exact match", "--json")
OPTIONS = DecodeOptions(num_beams=1, max_length=14, batch_size=4)


class Zeros:
    """Features of nothing."""

    layers, width = 3, 24

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        return np.zeros((len(samples), self.layers, self.width), np.float16)

    def describe(self) -> dict[str, Any]:
        return {}


def test_a_cluster_decodes_what_one_process_does(
    trial: Trial, tmp_path: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = trial.samples
    trial.samples = [{**row, "id": f"once-{row['id']}"} if row["split"] == "test" else row for row in rows]
    train_one(trial)
    alone = trial.epalm(*SCORE)
    whole = files_of(tmp_path)
    (path,) = (tmp_path / "runs/a/predictions").iterdir()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    done = trial.epalm(*SCORE, "--engine", "dask", "--scheduler", dask_workers.address, "--batch-size", 4)
    assert (alone.code, done.code) == (0, 0), done.err
    assert (tmp_path / "runs/a/died").exists()  # of one of the workers
    assert files_of(tmp_path) == whole
    assert json.loads(done.out) == json.loads(alone.out)
    assert "dask: 2 workers" in done.err and "Traceback" not in done.err

    cluster = Elsewhere(DaskDecoding(dask_workers.address), "best", "cpu")
    run = load_run(RunFolder(tmp_path / "runs/a"), empty=True)
    sample = Sample("deadly", Modality.IMAGE, "m", Task.CAPTION, "test")
    monkeypatch.setattr("epalm.dask_tasks._MOST_TRIES", 1)
    with pytest.raises(EpalmError, match="all workers that decoded the 1 samples from deadly on died") as caught:
        list(cluster.decode(run, Zeros(), [sample], OPTIONS))
    assert "the same command goes on" in str(caught.value.hint)

    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"^on {os.uname().nodename}: .*/runs/a is no run folder here") as lost:
        list(cluster.decode(run, Zeros(), [sample], OPTIONS))
    assert "where all machines reach it" in str(lost.value.hint)
