"""Decoding in other processes: what they have to know, the chunks that they are given, and what they do with one.

Samples travel with their features, so that the other process needs the run folder and the language model, and neither
media nor cache. Knows nothing of how it was started, or by whom.

Letters: B samples of a chunk, K perceptual tokens, D_enc encoder width.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from epalm.errors import UsageError
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

_LARGEST = 128  # samples of a chunk where each process finds its own batch size


@dataclass(frozen=True)
class Job:
    """What all chunks of a scoring share.

    `run` is an absolute path, `lm` one too where the language model is a folder. `digest` is of what of the run decides
    predictions; `options` are those of `decode_batches`.
    """

    run: str
    checkpoint: str
    lm: str
    digest: str
    device: str
    options: DecodeOptions


@dataclass(frozen=True)
class Chunk:
    """Samples that one process decodes, of one question length; features (B, K, D_enc) in their order."""

    samples: tuple[Sample, ...]
    features: np.ndarray


class Engine(Protocol):
    """Who decodes, where it is not this process."""

    def __call__(self, job: Job, chunks: Iterator[Chunk]) -> Generator[list[Prediction]]:
        """The chunks' predictions, in the order in which they come; closed or failing, it leaves nothing at work.

        Raises:
            EpalmError: somebody cannot decode; the message says why.
        """
        ...


@dataclass(frozen=True)
class Elsewhere:
    """An engine with what it needs to know of a run: which checkpoint of it, and what each process computes on."""

    engine: Engine
    checkpoint: str
    device: str

    def decode(
        self, run: LoadedRun, features: FeatureSource, samples: Sequence[Sample], options: DecodeOptions
    ) -> Generator[list[Prediction]]:
        """Predictions batch by batch, as `decode_batches` with these options gives them; of `run`, shapes suffice.

        Raises:
            UsageError: see `require_decodable`.
            EpalmError: see `Engine`.
        """
        groups = length_groups(run.text, samples, options)
        require_decodable(run.model, run.text, groups, options)
        job = Job(
            str(run.folder.path.resolve()),
            self.checkpoint,
            run.config.from_anywhere().lm.name,
            digest_json(run.decides()),
            self.device,
            options,
        )
        return self.engine(job, _chunks(run, features, groups, options.batch_size or _LARGEST))


class Decoder:
    """The run of a job, loaded to decode chunks."""

    def __init__(self, job: Job) -> None:
        """Raises UsageError: the run is not here, or is another one here."""
        self._options = job.options
        folder = RunFolder(Path(job.run))
        if not folder.has_begun:
            raise UsageError(f"{job.run} is no run folder here", hint="put --runs where all machines reach it")
        self._run = load_run(folder, device=job.device, checkpoint=job.checkpoint, lm=job.lm)
        if digest_json(self._run.decides()) != job.digest:
            raise UsageError(
                f"{job.run} holds other tensors or settings here than where the scoring began",
                hint="wait until its training has ended; on several machines, put --runs where all of them reach it",
            )
        self._size = BatchSize(job.options.batch_size, self._run.model.connector.weight.device)

    def decode(self, chunk: Chunk) -> list[Prediction]:
        """A prediction for each sample."""
        features = ReadyFeatures(chunk.samples, chunk.features)
        run, samples = self._run, chunk.samples
        batches = decode_batches(run.model, run.text, features, samples, self._options, self._size)
        return [prediction for batch in batches for prediction in batch]


def _chunks(run: LoadedRun, features: FeatureSource, groups: Sequence[Sequence[Sample]], size: int) -> Iterator[Chunk]:
    """At most `size` samples of one group each; their features are gathered when the chunk is taken."""
    for group in groups:
        for first in range(0, len(group), size):
            samples = group[first : first + size]
            tokens = features.gather(samples)[:, features.layers - run.config.model.tokens :]
            yield Chunk(tuple(_bare(sample) for sample in samples), np.ascontiguousarray(tokens))


def _bare(sample: Sample) -> Sample:
    """Without what is expected: decoding needs none of it."""
    return replace(sample, answers={}, raw_answers=(), references=())
