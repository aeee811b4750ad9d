"""Decoding in other processes: workers of a Dask cluster, on this machine or on many. A task is one batch of samples.

Samples are sent with their features, so that a worker needs the run folder and the language model, and neither media
nor cache. A worker may die, join late or run a task twice; predictions come back to this process, which saves them.

Letters: B samples of a task, K perceptual tokens, D_enc encoder width.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from epalm.console import say
from epalm.cores import usable_cores
from epalm.dask_cluster import AGAIN, cluster, on_this_host, own_gpu, sharing
from epalm.dask_tasks import Kept, Tasks
from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.batch_size import BatchSize
from epalm.evaluate.decoding.decodable import require_decodable
from epalm.evaluate.decoding.decode import decode_batches, length_groups
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.evaluate.decoding.ready_features import ReadyFeatures
from epalm.fingerprint import digest_json
from epalm.samples import Prediction, Sample
from epalm.train.data.features import FeatureSource
from epalm.train.runs.loading import LoadedRun, load_run
from epalm.train.runs.run_folder import RunFolder

_LARGEST = 128  # samples of a task where each worker finds its own batch size


@dataclass(frozen=True)
class RemoteDecoder:
    """The workers that decode a run."""

    checkpoint: str  # of the run, as `load_run` takes it
    device: str  # of each worker
    processes: int = 2  # to start on this machine, where there is no scheduler
    scheduler: str | None = None  # address of a cluster that is there

    def decode(
        self, run: LoadedRun, features: FeatureSource, samples: Sequence[Sample], options: DecodeOptions
    ) -> Generator[list[Prediction]]:
        """Predictions batch by batch, as `decode_batches` with these options gives them; of `run`, shapes suffice.

        Raises:
            UsageError: see `require_decodable`; no scheduler answers; a machine lacks something or has another.
            EpalmError: the scheduler is gone, or a task's workers die again and again.
        """
        groups = length_groups(run.text, samples, options)
        require_decodable(run.model, run.text, groups, options)
        job = Job(
            str(run.folder.path.resolve()),
            self.checkpoint,
            run.config.from_anywhere().lm.name,
            digest_json(run.decides()),
            self.device,
            own_gpus=self.scheduler is None,
            options=options,
        )
        with cluster(self.scheduler, self.processes) as workers:
            count = sum(workers.processes().values())
            say(f"decoding: {count} processes" if self.scheduler is None else f"dask: {count} workers")
            tasks: Tasks[Task, list[Prediction]] = Tasks(workers, decode_task, _died)
            try:
                with closing(tasks.results(_tasks(job, run, features, groups))) as results:
                    for _, predictions in results:
                        yield predictions
            finally:
                workers.on_all(let_go, job)


@dataclass(frozen=True)
class Job:
    """What all tasks of a scoring share."""

    run: str  # absolute path
    checkpoint: str
    lm: str  # an absolute path where the language model is a folder
    digest: str  # of what of the run decides predictions
    device: str
    own_gpus: bool  # the workers were started for this, on this machine: each takes a GPU of its own
    options: DecodeOptions


@dataclass(frozen=True)
class Task:
    """Samples of one question length; features (B, K, D_enc) in their order."""

    job: Job
    samples: tuple[Sample, ...]
    features: np.ndarray


class Decoder:
    """In a worker: the run of a job, kept from task to task, with the batch size that was found to fit."""

    def __init__(self, job: Job) -> None:
        """Raises UsageError: the run is not here, or is another one here."""
        folder = RunFolder(Path(job.run))
        if not folder.has_begun:
            raise UsageError(f"{job.run} is no run folder here", hint="put --runs where all machines reach it")
        self._run = load_run(folder, device=device_of(job), checkpoint=job.checkpoint, lm=job.lm)
        if digest_json(self._run.decides()) != job.digest:
            raise UsageError(
                f"{job.run} holds other tensors or settings here than where the scoring began",
                hint="wait until its training has ended; on several machines, put --runs where all of them reach it",
            )
        self._size = BatchSize(job.options.batch_size, self._run.model.connector.weight.device)

    def decode(self, task: Task) -> list[Prediction]:
        """A prediction for each sample."""
        run, features = self._run, ReadyFeatures(task.samples, task.features)
        batches = decode_batches(run.model, run.text, features, task.samples, task.job.options, self._size)
        return [prediction for batch in batches for prediction in batch]


_DECODERS = Kept(Decoder)


def decode_task(task: Task, processes: Mapping[str, int]) -> list[Prediction]:
    """In a worker: the task's predictions; `processes` (host → workers) tells who shares the cores.

    Raises:
        EpalmError: the run is not there, or another one; the message names this machine.
    """
    with on_this_host(), _DECODERS.using(task.job) as decoder:
        torch.set_num_threads(max(1, usable_cores() // sharing(processes)))
        return decoder.decode(task)


def let_go(job: Job) -> None:
    """In a worker: free the model that is kept for a job, unless it is at work."""
    _DECODERS.let_go(job)


def device_of(job: Job) -> str:
    """In a worker: what it computes on."""
    gpus = torch.cuda.device_count() if job.own_gpus and job.device in ("auto", "cuda") else 0
    return f"cuda:{own_gpu(gpus)}" if gpus else job.device


def _tasks(job: Job, run: LoadedRun, features: FeatureSource, groups: Sequence[Sequence[Sample]]) -> Iterator[Task]:
    """Batches of one group each; their features are gathered when the task is taken."""
    size = job.options.batch_size or _LARGEST
    for group in groups:
        for first in range(0, len(group), size):
            samples = group[first : first + size]
            tokens = features.gather(samples)[:, features.layers - run.config.model.tokens :]
            bare = (replace(sample, answers={}, raw_answers=(), references=()) for sample in samples)
            yield Task(job, tuple(bare), np.ascontiguousarray(tokens))


def _died(task: Task) -> EpalmError:
    return EpalmError(
        f"all workers that decoded the {len(task.samples):,} samples from {task.samples[0].id} on died",
        hint=f"look into their logs: too little memory? fewer --processes or a smaller --batch-size take less; {AGAIN}",
    )
