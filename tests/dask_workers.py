"""A Dask cluster on the loopback for tests: two workers that start fast, take a moment for each block, and can die.

Workers are forked from a process that has imported what they need. What a worker does beside its work is told by
names: a block with a medium `deadly…` kills it, and so does a batch with a sample `deadly…`; one with `once…` kills one
worker, which leaves a note in the run folder.
"""

import json
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.extract.encoders.registry import Encoder, EncoderChoice, build_encoder
from epalm.extract.pipeline import ExtractSummary, execute
from epalm.extract.plan import ExtractionPlan
from epalm.samples import Dataset, Modality, Sample, Task
from tests.extractions import Machine, plan_features

BLOCK_ROWS, BATCH, LAYERS = 8, 4, (0, 2)
MACHINE = Machine(BATCH, 0, BLOCK_ROWS)
_PRELOADED = [
    "distributed",
    "torch",
    "timm",
    "epalm.extract.encoders.vit",
    "epalm.extract.dask_blocks",
    "epalm.evaluate.decoding.remote",
]
_BESIDE = """
import os, pathlib, signal, time
from epalm.evaluate.decoding import remote
from epalm.extract import dask_blocks

def slow(encoder, task, threads, encode=dask_blocks.BlockEncoder.run):
    time.sleep(0.1)
    if any(item.media.startswith("deadly") for item in task):
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(encoder, task, threads)

dask_blocks.BlockEncoder.run = slow

def load(decoder, job, number, load=remote.Decoder.__init__):
    decoder.died = pathlib.Path(job.run) / "died"
    load(decoder, job, number)

def risky(decoder, task, threads, decode=remote.Decoder.run):
    names = [sample.id for sample in task.samples]
    once = any(name.startswith("once") for name in names) and not decoder.died.exists()
    if once:
        decoder.died.touch()
    if once or any(name.startswith("deadly") for name in names):
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(decoder, task, threads)

remote.Decoder.__init__, remote.Decoder.run = load, risky
"""


class Workers:
    """The cluster and a client of it."""

    def __init__(self, cluster: Any, client: Any) -> None:
        self.cluster, self.client = cluster, client
        self.address: str = cluster.scheduler_address

    def scale(self, count: int) -> None:
        """Have exactly so many workers."""
        self.cluster.scale(count)
        self.wait_for(count)

    def wait_for(self, count: int) -> None:
        """Wait until there are exactly so many."""
        deadline = time.monotonic() + 60
        while len(self.client.nthreads()) != count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def pids(self) -> list[int]:
        """Of the worker processes, as their nannies know them: a worker that dies answers nobody for long."""
        return [nanny.pid for nanny in self.cluster.workers.values() if nanny.pid]

    def kill_one(self) -> int:
        """SIGKILL; which it was."""
        while not (pids := self.pids()):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
        return pids[0]


@contextmanager
def forked_workers() -> Iterator[None]:
    """Have workers forked from a process that has imported what they need."""
    import dask
    import distributed  # noqa: F401  # it sets its defaults when it is imported, once, and they have to stay

    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    multiprocessing.forkserver.ensure_running()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


@contextmanager
def two_workers() -> Iterator[Workers]:
    """A cluster as described above."""
    from distributed import Client, LocalCluster

    with (
        forked_workers(),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            preload=[_BESIDE],
            scheduler_kwargs={"allowed_failures": 1},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Workers(cluster, client)


@contextmanager
def scheduler_process(
    folder: Path, *software: Path, protocol: str = "tcp"
) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """A scheduler's address and process; it imports from the `software` folders first."""
    scheduler_file = folder / "scheduler.json"
    scheduler_file.unlink(missing_ok=True)
    words = ("--port", "0", "--scheduler-file", str(scheduler_file), "--interface", "lo", "--protocol", protocol)
    with _dask_process("scheduler", *words, software=software) as process:
        while True:
            with suppress(OSError, ValueError):
                address = json.loads(scheduler_file.read_text())["address"]
                break
            assert process.poll() is None
            time.sleep(0.02)
        yield address, process


@contextmanager
def worker_process(scheduler: str, *software: Path) -> Iterator[None]:
    """A worker of that scheduler; it imports from the `software` folders first."""
    with _dask_process("worker", scheduler, "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1", software=software):
        yield


@contextmanager
def _dask_process(kind: str, *words: str, software: Sequence[Path]) -> "Iterator[subprocess.Popen[bytes]]":
    path = os.pathsep.join([*map(str, software), *sys.path])
    command = [sys.executable, "-P", "-m", f"distributed.cli.dask_{kind}", *words, "--dashboard-address", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=dict(os.environ, PYTHONPATH=path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def pictures(folder: Path, count: int, *, prefix: str = "") -> Path:
    """A folder with so many pictures, all different."""
    folder.mkdir(exist_ok=True)
    numbers = np.random.default_rng(len(prefix))
    for number in range(count):
        values = numbers.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{prefix}{number:03d}.png")
    return folder


def dataset(folder: Path) -> Dataset:
    """Every file of a folder, in order of name."""
    names = sorted(path.name for path in folder.iterdir())
    return Dataset(str(folder), folder, tuple(Sample(n, Modality.IMAGE, n, Task.CAPTION, "train") for n in names))


def choice(weights: Path) -> EncoderChoice:
    """The encoder of all these tests."""
    return EncoderChoice("vit", str(weights), modality=Modality.IMAGE)


def dask_options(weights: Path, scheduler: str, **options: Any) -> dict[str, Any]:
    """What a request says of a cluster's workers and their encoder; they decode in their own process."""
    how = {"encoder": "vit", "weights": str(weights), "engine": "dask", "scheduler": scheduler}
    return {**how, **vars(MACHINE), **options}


def extract(
    media: Path,
    cache: Path,
    weights: Path,
    options: Mapping[str, Any] = {},
    *,
    after_planning: Callable[[ExtractionPlan], ExtractionPlan | None] = lambda _: None,
) -> ExtractSummary:
    """One extraction; without options, by this process. Between plan and work something may happen."""
    encoder: Encoder = build_encoder(choice(weights), device="cpu")
    where = Cache(cache)
    how = {"machine": MACHINE, "choice": choice(weights), **options}
    plan = plan_features(dataset(media), Modality.IMAGE, encoder, LAYERS, where, **how)
    return execute(after_planning(plan) or plan)


def the_set(cache: Path) -> FeatureSet:
    """The only feature set of a cache."""
    (only_set,) = Cache(cache).sets()
    return only_set


def rows(cache: Path, view: int = 0) -> dict[str, bytes]:
    """Digest → the bytes of its row; fails where a row is there twice or is damaged."""
    features = the_set(cache)
    assert not features.verify()
    stored = [row for record in features.records() if view in record.views for row in record.rows]
    assert len(stored) == len(set(stored))
    reader = features.open()
    digests = sorted(stored)
    values = reader.gather(reader.rows_of(digests), view=view)
    return {digest: value.tobytes() for digest, value in zip(digests, values, strict=True)}
