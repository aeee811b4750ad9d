"""What a Dask worker does: one block, from media files to a committed record. One encoder per process.

Knows the cache and the encoder; of the cluster only how many processes share this machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.objects.base import MissingObjectError
from epalm.cache.store import Cache
from epalm.cores import usable_cores
from epalm.dask_cluster import on_this_host, own_gpu, sharing
from epalm.dask_tasks import Kept
from epalm.errors import UsageError
from epalm.extract.decoding.workers import DecodePool, default_workers
from epalm.extract.encoders.registry import EncoderChoice, build_encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.media.limits import Limits
from epalm.extract.plan import Pending
from epalm.extract.selection import feature_spec
from epalm.extract.stream import Stream, Tally, decode_pool


@dataclass(frozen=True)
class Setting:
    """What all tasks of an extraction share: the encoder, where the rows go, and how the machine is used.

    `numbered`: the workers were started for this, on this machine, and are called 0, 1, …: each takes a GPU of its own.
    """

    choice: EncoderChoice
    cache: str
    set_name: str
    limits: Limits
    device: str
    compiled: bool
    batch_size: int
    workers: int | None
    block_rows: int
    timeout: float
    numbered: bool = False


@dataclass(frozen=True)
class BlockTask:
    """One block: media that all lack the same views."""

    setting: Setting
    views: tuple[int, ...]
    items: tuple[Pending, ...]


@dataclass(frozen=True)
class BlockDone:
    """What a worker did, and on which host; with `absent` media it did nothing.

    `absent` are those that this host lacks, or has with other bytes: whether they have changed, or this host is the
    odd one, the driver can tell.
    """

    host: str
    tally: Tally
    absent: tuple[Pending, ...] = ()


def encode_block(task: BlockTask, processes: Mapping[str, int]) -> BlockDone:
    """Encode and commit what the cache lacks of a block; `processes` (host → workers) tells who shares the cores.

    Raises:
        UsageError: this machine's weights or code would give other numbers than the driver's, or it lacks the cache.
        CacheError: the cache cannot be written.
    """
    with on_this_host() as host, _KEPT.using(task.setting) as kit:
        kit.share_cores(sharing(processes))
        return kit.encode(task, host)


def let_go(setting: Setting) -> None:
    """Free the encoder and end the decoding processes that are kept for `setting`, unless they are at work."""
    _KEPT.let_go(setting)


@dataclass(frozen=True)
class _Crew:
    """Who shares the work of one worker."""

    threads: int
    decoders: int
    batches: BatchEncoder
    pool: DecodePool


class _Kit:
    """An encoder, and what goes with it, for one setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._features = _require_set(setting)
        spec = self._features.spec
        device = _device(setting)
        self._encoder = build_encoder(setting.choice, device=device, compiled=setting.compiled, limits=setting.limits)
        seed = (spec.augmentation or {"seed": 0})["seed"]
        here = feature_spec(self._encoder, spec.layers, spec.stored_dtype, view_seed=seed)
        if here.fingerprint != spec.fingerprint:
            raise UsageError(
                f"the encoder would give other numbers than {setting.set_name} holds",
                hint="install the same epalm, and give the same weights, on all machines",
            )
        self._crew: _Crew | None = None

    def share_cores(self, processes: int) -> None:
        """Take one of so many equal shares of this machine's cores; workers come and go."""
        threads, decoders = max(1, usable_cores() // processes), self.setting.workers
        if decoders is None:
            decoders = max(1, default_workers(gpu=self._encoder.device.type == "cuda") // processes)
        if self._crew is None or (self._crew.threads, self._crew.decoders) != (threads, decoders):
            self.close()
            torch.set_num_threads(threads)
            spec, setting = self._features.spec, self.setting
            batches = BatchEncoder(
                self._encoder, spec.layers, spec.stored_dtype, setting.batch_size, threads=threads if decoders else 0
            )
            self._crew = _Crew(threads, decoders, batches, decode_pool(self._encoder, decoders, setting.timeout))

    def encode(self, task: BlockTask, host: str) -> BlockDone:
        assert self._crew is not None
        here = [_as_here(item) for item in task.items]
        if absent := tuple(item for item, found in zip(task.items, here, strict=True) if found is None):
            return BlockDone(host, Tally(), absent)
        held = [self._features.rows(view) for view in task.views]
        left = [item for item in here if item and not all(item.digest in rows for rows in held)]
        stream = Stream(self._crew.batches, self._features, self._crew.pool, self.setting.block_rows, _silent)
        stream.tally.elsewhere += len(here) - len(left)
        stream.go(left, task.views)
        return BlockDone(host, stream.tally)

    def close(self) -> None:
        if self._crew:
            self._crew.batches.close()
            self._crew.pool.close()
            self._crew = None


_KEPT = Kept(_Kit, _Kit.close)  # a process keeps its encoder from task to task


def _device(setting: Setting) -> str:
    gpus = torch.cuda.device_count() if setting.numbered and setting.device == "auto" else 0
    return f"cuda:{own_gpu(gpus)}" if gpus > 1 else setting.device


def _require_set(setting: Setting) -> FeatureSet:
    try:
        return Cache(setting.cache).load(setting.set_name)
    except MissingObjectError as error:
        raise UsageError(
            f"{setting.cache} does not hold the feature set {setting.set_name} that the driver has made there",
            hint="put the cache where all machines reach it: a shared folder, or a URL such as s3://bucket/cache",
        ) from error


def _as_here(item: Pending) -> Pending | None:
    """The medium as this machine has it: maybe a copy with other times; None where the bytes are not there."""
    status = item.file.status()
    return replace(item, status=status) if status and item.unchanged() else None


def _silent(units: int = 1, *, note: str = "") -> None:
    """No bar of a worker's own: the driver shows one."""
