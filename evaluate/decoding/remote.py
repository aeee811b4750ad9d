"""Decoding in other processes: workers of a Dask cluster, on this machine or on many. A task is one batch of samples.

Samples are sent with their features, so that a worker needs the run folder and the language model, and neither media
nor cache. A worker may die, join late or run a task twice; predictions come back to this process, which saves them.

Letters: B samples of a task, K perceptual tokens, D_enc encoder width.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from epalm.dask_engine import AGAIN, Cluster, Worker, device_of_worker, run_tasks
from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.decode import BatchSize, decode_batches, in_parts, length_groups
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.fingerprint import digest_json
from epalm.samples import Prediction, Sample
from epalm.train.data.features import FeatureSource
from epalm.train.runs.loading import LoadedRun, load_run
from epalm.train.runs.run_folder import RunFolder

_LARGEST = 128  # samples of a task where each worker finds its own batch size


@dataclass(frozen=True)
class Job:
    """What all tasks of a scoring share."""

    run: str  # absolute path
    checkpoint: str  # as `load_run` takes it
    lm: str  # an absolute path where the language model is a folder
    digest: str  # of what of the run decides predictions
    device: str  # of each worker
    options: DecodeOptions


class Task(NamedTuple):
    """Samples of one question length; features (B, K, D_enc) in their order."""

    samples: tuple[Sample, ...]
    features: np.ndarray


def decode_remotely(
    cluster: Cluster,
    checkpoint: str,
    device: str,
    run: LoadedRun,
    features: FeatureSource,
    samples: Sequence[Sample],
    options: DecodeOptions,
) -> Generator[list[Prediction]]:
    """Predictions batch by batch, as `decode_samples` gives them; of `run`, shapes suffice.

    Workers take that checkpoint of the run, each on such a device. Raises UsageError: see `length_groups`; a machine
    lacks something or has another; EpalmError: see `run_tasks`.
    """
    folder, lm = str(run.folder.path.resolve()), run.config.from_anywhere().lm.name
    job = Job(folder, checkpoint, lm, digest_json(run.decides()), device, options)

    def tasks() -> Iterator[Task]:
        """Batches of one group each; their features are gathered when the task is taken."""
        size = options.batch_size or _LARGEST
        for part, gather in in_parts(features, samples):
            groups = length_groups(run, part, options)
            for batch in (group[first : first + size] for group in groups for first in range(0, len(group), size)):
                tokens = gather(batch)[:, features.layers - run.config.model.tokens :]
                bare = (replace(sample, answers={}, raw_answers=(), references=()) for sample in batch)
                yield Task(tuple(bare), np.ascontiguousarray(tokens))

    with closing(run_tasks(cluster, Decoder, job, tasks(), _died)) as results:
        for _, predictions in results:
            yield predictions


class Decoder(Worker[Task, list[Prediction]]):
    """In a worker: the run of a job, kept from task to task, with the batch size that was found to fit."""

    def __init__(self, job: Job, number: int | None) -> None:
        """`number`: see `run_tasks`. Raises UsageError: the run is not here, or is another one here."""
        self._options, folder = job.options, RunFolder(Path(job.run))
        if not folder.has_begun:
            raise UsageError(f"{job.run} is no run folder here", hint="put --runs where all machines reach it")
        self._run = load_run(folder, device=device_of_worker(job.device, number), checkpoint=job.checkpoint, lm=job.lm)
        if digest_json(self._run.decides()) != job.digest:
            raise UsageError(
                f"{job.run} holds other tensors or settings here than where the scoring began",
                hint="wait until its training has ended; on several machines, put --runs where all of them reach it",
            )
        self._size = BatchSize(job.options.batch_size, self._run.model.device)

    def run(self, task: Task, threads: int) -> list[Prediction]:
        """A prediction for each sample."""
        torch.set_num_threads(threads)
        rows = {sample.id: row for sample, row in zip(task.samples, task.features, strict=True)}

        def gather(samples: Sequence[Sample]) -> np.ndarray:
            return np.stack([rows[sample.id] for sample in samples])

        batches = decode_batches(self._run, gather, task.samples, self._options, self._size)
        return [prediction for batch in batches for prediction in batch]


def _died(task: Task) -> EpalmError:
    return EpalmError(
        f"all workers that decoded the {len(task.samples):,} samples from {task.samples[0].id} on died",
        hint=f"look into their logs: too little memory? fewer --processes or a smaller --batch-size take less; {AGAIN}",
    )
