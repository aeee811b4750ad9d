"""Stage 1 on Dask workers: a task is one block, from media files to a committed record.

Media and cache lie on storage that all machines reach. A worker may die, join late or do a task twice: what is
committed already is not committed again. This process plans and counts; workers keep one encoder each.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.cache.objects.base import MissingObjectError
from epalm.cache.store import Cache
from epalm.console import Advance
from epalm.dask_cluster import AGAIN
from epalm.dask_engine import run_tasks
from epalm.devices import device_of_worker
from epalm.errors import EpalmError, UsageError
from epalm.extract.encoders.registry import build_encoder
from epalm.extract.plan import ExtractionPlan, Pending
from epalm.extract.request import ExtractRequest
from epalm.extract.spec_builder import would_give
from epalm.extract.stream import CHANGED, Stream, Tally, without_rows

_LOOK_AROUND = 1.0  # seconds between two looks at what another machine has written
_SEEN_TIMEOUT = 90.0  # seconds until what another machine wrote is seen here: network drives remember folders for 60
_SHARE_THE_CACHE = "put the cache where all machines reach it: a shared folder, or a URL such as s3://bucket/cache"


@dataclass(frozen=True)
class Setting:
    """What all blocks of an extraction share."""

    request: ExtractRequest  # with a cache and weights that are found from any folder
    set_name: str


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


def encode_on_cluster(plan: ExtractionPlan, features: FeatureSet, advance: Advance) -> Tally:
    """Have the workers of the request's cluster encode what is pending.

    Raises:
        UsageError: a machine lacks something or has another; see also `run_tasks`.
    """
    cluster, request = plan.request.cluster(), plan.request
    assert cluster
    cache = request.cache if "://" in request.cache else str(Path(request.cache).absolute())
    setting = Setting(replace(request, cache=cache, weights=request.choice().weights), features.name)
    tally, trusted = Tally(), set[str]()  # hosts whose rows have been seen in the cache
    with closing(run_tasks(cluster, BlockEncoder, setting, _blocks(plan), _died)) as results:
        for block, done in results:
            _require_same_media(block, done)
            features.ledger.add_all(Entry(one.media, None, CHANGED.message, CHANGED.hint) for one in done.absent)
            tally.add(done.tally)
            tally.bad += len(done.absent)
            if done.host not in trusted:
                _require_rows(features, block, done)
                trusted.add(done.host)
            advance(len(block.items), note=f"{tally.bad} bad" if tally.bad else "")
    return tally


class BlockEncoder:
    """In a worker process: the encoder and what goes with it, kept from block to block."""

    def __init__(self, setting: Setting, number: int | None) -> None:
        """Raises UsageError where this machine would give other numbers than the driver's, or lacks the cache."""
        request = self._request = setting.request
        try:
            self._features = Cache(request.cache).load(setting.set_name)
        except MissingObjectError as error:
            raise UsageError(
                f"{request.cache} does not hold the feature set {setting.set_name} that the driver has made there",
                hint=_SHARE_THE_CACHE,
            ) from error
        device = device_of_worker(request.device, number)
        self._encoder = build_encoder(
            request.choice(), device=device, compiled=request.compiled, limits=request.limits()
        )
        if not would_give(self._encoder, self._features.spec):
            raise UsageError(
                f"the encoder would give other numbers than {setting.set_name} holds",
                hint="install the same epalm, and give the same weights, on all machines",
            )
        self._cores = 0  # that the stream is made for: workers of a machine come and go
        self._stream: Stream | None = None

    def run(self, task: Block, threads: int) -> Done:
        """Encode and commit what the cache lacks of a block. Raises CacheError when the cache cannot be written."""
        if self._stream is None or self._cores != threads:
            self.close()
            torch.set_num_threads(threads)
            self._stream = Stream(self._encoder, self._features, self._request, cores=threads)
            self._cores = threads
        here = [(item, _as_here(item)) for item in task.items]
        there = [item for _, item in here if item]
        left = without_rows(self._features, there, task.views)
        self._stream.tally = Tally(elsewhere=len(there) - len(left))
        self._stream.go(left, task.views)
        absent = tuple(item for item, found in here if found is None)
        return Done(socket.gethostname(), self._stream.tally, absent)

    def close(self) -> None:
        """End the decoding processes."""
        if self._stream:
            self._stream.close()
        self._stream = None


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
        if len(without_rows(features, block.items, block.views)) <= done.tally.bad + len(done.absent):
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


def _blocks(plan: ExtractionPlan) -> Iterator[Block]:
    rows = plan.request.block_rows
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
