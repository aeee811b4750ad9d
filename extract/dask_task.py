"""What a Dask worker does: one block, from media files to a committed record. One encoder per process.

Knows the cache and the encoder, not the cluster.
"""

import os
import socket
import threading
from dataclasses import dataclass

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.errors import UsageError
from epalm.extract.encoders import EncoderChoice, build_encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.limits import Limits
from epalm.extract.plan import Pending
from epalm.extract.selection import feature_spec
from epalm.extract.stream import Stream, Tally, decode_pool
from epalm.extract.workers import DecodePool, default_workers


@dataclass(frozen=True)
class Setting:
    """What all tasks of an extraction share: the encoder, where the rows go, and how the machine is used."""

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


@dataclass(frozen=True)
class BlockTask:
    """One block: media that all lack the same views."""

    setting: Setting
    views: tuple[int, ...]
    items: tuple[Pending, ...]


def encode_block(task: BlockTask, threads_of_hosts: dict[str, int]) -> Tally:
    """Encode and commit a block; what was done. `threads_of_hosts` says how many workers share a host's cores.

    Raises:
        UsageError: this machine's weights or code would give other numbers than the driver's.
        CacheError: the cache cannot be written.
    """
    with _LOCK:  # one block at a time, however many threads a worker has: they would share one encoder
        kit = _kit(task.setting, _sharing(threads_of_hosts))
        stream = Stream(kit.batches, kit.features, kit.pool, task.setting.block_rows, _silent)
        held = [kit.features.rows(view) for view in task.views]
        left = [item for item in task.items if not all(item.digest in rows for rows in held)]
        stream.tally.elsewhere += len(task.items) - len(left)
        stream.go(left, task.views)
        return stream.tally


@dataclass(frozen=True)
class _Kit:
    setting: Setting
    features: FeatureSet
    batches: BatchEncoder
    pool: DecodePool


_LOCK = threading.Lock()
_KITS: list[_Kit] = []  # of the latest setting: a process keeps its encoder from task to task


def _kit(setting: Setting, sharing: int) -> _Kit:
    if _KITS and _KITS[0].setting == setting:
        return _KITS[0]
    while _KITS:
        _KITS.pop().pool.close()
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // sharing))
    encoder = build_encoder(setting.choice, device=setting.device, compiled=setting.compiled, limits=setting.limits)
    features = Cache(setting.cache).load(setting.set_name)
    spec, seed = features.spec, (features.spec.augmentation or {"seed": 0})["seed"]
    here = feature_spec(encoder, spec.layers, spec.stored_dtype, view_seed=seed)
    if here != spec:
        raise UsageError(
            f"the worker on {socket.gethostname()} would give other numbers than {setting.set_name} holds",
            hint="install the same epalm, and give the same weights, on all machines",
        )
    workers = max(1, default_workers() // sharing) if setting.workers is None else setting.workers
    pool = decode_pool(encoder, workers, setting.timeout)
    _KITS.append(
        _Kit(setting, features, BatchEncoder(encoder, spec.layers, spec.stored_dtype, setting.batch_size), pool)
    )
    return _KITS[0]


def _sharing(threads_of_hosts: dict[str, int]) -> int:
    """How many workers share this machine's cores, told from the address that Dask gave this one."""
    from distributed import get_worker

    return max(1, threads_of_hosts.get(get_worker().address.split("://")[-1].rpartition(":")[0], 1))


def _silent(units: int = 1, *, note: str = "") -> None:
    """No bar of a worker's own: the driver shows one."""
