"""Decoding on many machines: a Dask task is one chunk. The driver sends samples and features; predictions come back.

The run folder lies on storage that all of them reach. A worker may die, join late or run a task twice.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from epalm.console import say
from epalm.cores import usable_cores
from epalm.dask_cluster import AGAIN, cluster, on_this_host, own_gpu, sharing
from epalm.dask_tasks import Kept, Tasks
from epalm.errors import EpalmError
from epalm.evaluate.decoding.spread import Chunk, Decoder, Job
from epalm.samples import Prediction


@dataclass(frozen=True)
class DaskDecoding:
    """The workers of a cluster: at `scheduler`, or `processes` of this machine started for the purpose."""

    scheduler: str | None = None
    processes: int = 2

    def __call__(self, job: Job, chunks: Iterator[Chunk]) -> Generator[list[Prediction]]:
        """See `Engine`.

        Raises:
            UsageError: Dask is not installed, no scheduler answers, or a machine lacks something or has another.
            EpalmError: the scheduler is gone, or a chunk's workers die again and again.
        """
        with cluster(self.scheduler, self.processes) as workers:
            say(f"dask: {sum(workers.processes().values())} workers")
            tasks: Tasks[_Task, list[Prediction]] = Tasks(workers, decode_chunk, _died)
            setting = _Setting(job, numbered=self.scheduler is None)
            try:
                with closing(tasks.results(_Task(setting, chunk) for chunk in chunks)) as results:
                    for _, predictions in results:
                        yield predictions
            finally:
                workers.on_all(let_go, setting)


@dataclass(frozen=True)
class _Setting:
    """`numbered`: the workers were started for this, on this machine, and are called 0, 1, …"""

    job: Job
    numbered: bool


@dataclass(frozen=True)
class _Task:
    """A chunk of a job."""

    setting: _Setting
    chunk: Chunk


def decode_chunk(task: _Task, processes: Mapping[str, int]) -> list[Prediction]:
    """In a worker: the chunk's predictions; `processes` (host → workers) tells who shares the cores.

    Raises:
        EpalmError: the run is not there, or another one; the message names this machine.
    """
    with on_this_host(), _KEPT.using(task.setting) as decoder:
        torch.set_num_threads(max(1, usable_cores() // sharing(processes)))
        return decoder.decode(task.chunk)


def let_go(setting: _Setting) -> None:
    """In a worker: free the model that is kept for a setting, unless it is at work."""
    _KEPT.let_go(setting)


def _load(setting: _Setting) -> Decoder:
    gpus = torch.cuda.device_count() if setting.numbered and setting.job.device == "auto" else 0
    return Decoder(replace(setting.job, device=f"cuda:{own_gpu(gpus)}") if gpus > 1 else setting.job)


_KEPT = Kept(_load)  # a process keeps its model from task to task


def _died(task: _Task) -> EpalmError:
    return EpalmError(
        f"all workers that decoded the {len(task.chunk.samples):,} samples from {task.chunk.samples[0].id} on died",
        hint=f"look into their logs: too little memory? a smaller --batch-size takes less; {AGAIN}",
    )
