"""Stage 1 on Dask workers: a task is one block, from media files to a committed record.

Media and cache lie on storage that all machines reach. A worker may die, join late or do a task twice: what is
committed already is not committed again. This process plans and counts; workers keep one encoder each.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.cache.objects.base import MissingObjectError
from epalm.cache.store import Cache
from epalm.console import Advance, silent
from epalm.dask_cluster import AGAIN, Cluster
from epalm.dask_engine import run_tasks
from epalm.devices import device_of_worker
from epalm.errors import EpalmError, UsageError
from epalm.extract.decoding.workers import DecodePool, default_workers
from epalm.extract.encoders.registry import EncoderChoice, build_encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.media.limits import Limits
from epalm.extract.plan import Pending, Plan
from epalm.extract.selection import feature_spec
from epalm.extract.stream import CHANGED, Stream, Tally, decode_pool

_LOOK_AROUND = 1.0  # seconds between two looks at what another machine has written
_SEEN_TIMEOUT = 90.0  # seconds until what another machine wrote is seen here: network drives remember folders for 60
_SHARE_THE_CACHE = "put the cache where all machines reach it: a shared folder, or a URL such as s3://bucket/cache"


@dataclass(frozen=True)
class DaskEngine:
    """The workers of a cluster; the other fields are as `Setting`'s."""

    choice: EncoderChoice
    cache: str
    limits: Limits
    cluster: Cluster = Cluster()
    device: str = "auto"
    compiled: bool = False
    batch_size: int = 32
    workers: int | None = None
    block_rows: int = 512
    timeout: float = 120.0

    def __call__(self, plan: Plan, features: FeatureSet, advance: Advance) -> Tally:
        """See `Engine`. Raises UsageError: a machine lacks something or has another; and see `run_tasks`."""
        cache = self.cache if "://" in self.cache else str(Path(self.cache).absolute())
        setting = Setting(
            self.choice, cache, features.name, self.limits, self.device, self.compiled,
            self.batch_size, self.workers, self.block_rows, self.timeout,
        )  # fmt: skip
        results = run_tasks(self.cluster, BlockEncoder, setting, _blocks(plan, self.block_rows), _died)
        tally, trusted = Tally(), set[str]()  # hosts whose rows have been seen in the cache
        with closing(results):
            for block, done in results:
                _require_same_media(block, done)
                features.ledger.add_all(Entry(one.media, None, CHANGED.message, CHANGED.hint) for one in done.absent)
                for one in fields(Tally):
                    setattr(tally, one.name, getattr(tally, one.name) + getattr(done.tally, one.name))
                tally.bad += len(done.absent)
                if done.host not in trusted:
                    _require_rows(features, block, done)
                    trusted.add(done.host)
                advance(len(block.items), note=f"{tally.bad} bad" if tally.bad else "")
        return tally


@dataclass(frozen=True)
class Setting:
    """What all blocks of an extraction share: the encoder, where the rows go, and how each machine is used."""

    choice: EncoderChoice
    cache: str
    set_name: str
    limits: Limits
    device: str
    compiled: bool
    batch_size: int
    workers: int | None  # decoding processes of each worker [default: a share of the cores]
    block_rows: int
    timeout: float


@dataclass(frozen=True)
class Block:
    """Media that all lack the same views."""

    views: tuple[int, ...]
    items: tuple[Pending, ...]


@dataclass(frozen=True)
class Done:
    """What a worker did, and on which host; it lacks the `absent` media, or has them with other bytes."""

    host: str
    tally: Tally
    absent: tuple[Pending, ...] = ()


class BlockEncoder:
    """In a worker process: the encoder and what goes with it, kept from block to block."""

    def __init__(self, setting: Setting, number: int | None) -> None:
        """Raises UsageError where this machine would give other numbers than the driver's, or lacks the cache."""
        self._setting = setting
        try:
            self._features = Cache(setting.cache).load(setting.set_name)
        except MissingObjectError as error:
            raise UsageError(
                f"{setting.cache} does not hold the feature set {setting.set_name} that the driver has made there",
                hint=_SHARE_THE_CACHE,
            ) from error
        spec, device = self._features.spec, device_of_worker(setting.device, number)
        self._encoder = build_encoder(setting.choice, device=device, compiled=setting.compiled, limits=setting.limits)
        seed = (spec.augmentation or {"seed": 0})["seed"]
        here = feature_spec(self._encoder, spec.layers, spec.stored_dtype, view_seed=seed)
        if here.fingerprint != spec.fingerprint:
            raise UsageError(
                f"the encoder would give other numbers than {setting.set_name} holds",
                hint="install the same epalm, and give the same weights, on all machines",
            )
        self._threads = 0  # that the parts below are made for
        self._pool: DecodePool | None = None
        self._batches: BatchEncoder | None = None

    def run(self, task: Block, threads: int) -> Done:
        """Encode and commit what the cache lacks of a block. Raises CacheError when the cache cannot be written."""
        pool, batches = self._parts(threads)
        here = [(item, _as_here(item)) for item in task.items]
        held = [self._features.rows(view) for view in task.views]
        there = [item for _, item in here if item]
        left = [item for item in there if not all(item.digest in rows for rows in held)]
        stream = Stream(batches, self._features, pool, self._setting.block_rows, silent)
        stream.tally.elsewhere += len(there) - len(left)
        stream.go(left, task.views)
        return Done(socket.gethostname(), stream.tally, tuple(item for item, found in here if found is None))

    def close(self) -> None:
        """End the decoding processes."""
        if self._batches and self._pool:
            self._batches.close()
            self._pool.close()
        self._batches = self._pool = None

    def _parts(self, threads: int) -> tuple[DecodePool, BatchEncoder]:
        """Decoding processes and encoder for so many cores: workers of a machine come and go."""
        if self._pool is None or self._batches is None or threads != self._threads:
            self.close()
            setting, spec, gpu = self._setting, self._features.spec, self._encoder.device.type == "cuda"
            decoders = default_workers(gpu=gpu, cores=threads) if setting.workers is None else setting.workers
            torch.set_num_threads(threads)
            self._threads, self._pool = threads, decode_pool(self._encoder, decoders, setting.timeout)
            self._batches = BatchEncoder(
                self._encoder, spec.layers, spec.stored_dtype, setting.batch_size, threads=threads if decoders else 0
            )
        return self._pool, self._batches


def _require_same_media(block: Block, done: Done) -> None:
    """Media that have changed since they were planned become ledger lines; that a machine lacks others is an error."""
    if same := [item for item in done.absent if item.unchanged()]:
        raise UsageError(
            f"{len(same)} of {len(block.items)} media are not on {done.host} as they are here, such as "
            f"{same[0].file.path}",
            hint="put the media where all machines reach them, under the same path",
        )


def _require_rows(features: FeatureSet, block: Block, done: Done) -> None:
    """Hold a host's first answer against the cache: it may write to a folder of its own of the same name."""
    began = time.monotonic()
    while True:
        held = [features.rows(view) for view in block.views]
        lacking = [item for item in block.items if not all(item.digest in rows for rows in held)]
        if len(lacking) <= done.tally.bad + len(done.absent):
            return
        if time.monotonic() - began > _SEEN_TIMEOUT:
            raise UsageError(
                f"what {done.host} has committed is not in {features.where} as this machine sees it",
                hint=_SHARE_THE_CACHE,
            )
        time.sleep(_LOOK_AROUND)


def _died(block: Block) -> EpalmError:
    return EpalmError(
        f"all workers that encoded the block from {block.items[0].media} to {block.items[-1].media} died",
        hint=f"look into their logs: too little memory, or a file that breaks the encoder; {AGAIN}",
    )


def _blocks(plan: Plan, rows: int) -> Iterator[Block]:
    for views, items in plan.by_views():
        for first in range(0, len(items), rows):
            yield Block(views, tuple(_everywhere(item) for item in items[first : first + rows]))


def _everywhere(item: Pending) -> Pending:
    """The same with a path that holds in another working directory; links stay, other machines may have others."""
    return replace(item, file=replace(item.file, path=item.file.path.absolute()))


def _as_here(item: Pending) -> Pending | None:
    """The medium as this machine has it: maybe a copy with other times; None where the bytes are not there."""
    status = item.file.status()
    return replace(item, status=status) if status and item.unchanged() else None
