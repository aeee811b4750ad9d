"""Worker processes that epalm starts itself are set up for computing; what they do is tested where they are used."""

import os

import pytest

from epalm.dask_engine import Cluster, Worker, run_tasks
from epalm.errors import EpalmError
from tests.dask_workers import forked_workers


class Variables(Worker[str, str]):
    """Answers with an environment variable of its process."""

    def __init__(self, setting: None, number: int | None) -> None:
        pass

    def run(self, task: str, threads: int) -> str:
        return os.environ.get(task, "none")


def _died(task: str) -> EpalmError:
    return EpalmError(task)


def test_the_c_library_of_workers_keeps_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "MALLOC_TRIM_THRESHOLD_"  # Dask's own workers have one that gives every freed buffer back
    monkeypatch.delenv(name, raising=False)
    with forked_workers():
        assert list(run_tasks(Cluster(processes=1), Variables, None, iter([name]), _died)) == [(name, "none")]
