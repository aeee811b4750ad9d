"""Stage 1 on Dask workers: a task is one block, from media files to a committed record.

Media and cache lie on storage that all machines reach. A worker may die, join late or do a task twice: what is
committed already is not committed again. This process plans and counts; workers keep one encoder each.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry
from epalm.cache.objects.base import MissingObjectError
from epalm.cache.store import Cache
from epalm.console import Advance
from epalm.dask_engine import AGAIN, Cluster, Worker, device_of_worker, run_tasks
from epalm.errors import EpalmError, UsageError
from epalm.extract.encoders.registry import build_encoder
from epalm.extract.plan import ExtractionPlan, Pending
from epalm.extract.request import ExtractRequest
from epalm.extract.spec_builder import would_give
from epalm.extract.stream import CHANGED, Stream, Tally, without_rows

_LOOK_AROUND = 1.0  # seconds between two looks at what another machine has written
_SEEN_TIMEOUT = 90.0  # seconds until what another machine wrote is seen here: network drives remember folders for 60
_SHARE_THE_CACHE = "put the cache where all machines reach it: a shared folder, or a URL such as s3://bucket/cache"
Block = tuple[Pending, ...]  # media that all lack the same views


class Setting(NamedTuple):
    """What all blocks of an extraction share; cache and weights of the request are found from any folder."""

    request: ExtractRequest
    set_name: str


class Done(NamedTuple):
    """What a worker did, and on which host; it lacks the `absent` media, or has them with other bytes."""

    host: str
    tally: Tally
    absent: Block


def encode_on_cluster(plan: ExtractionPlan, cluster: Cluster, features: FeatureSet, advance: Advance) -> Tally:
    """Have workers encode what is pending. Raises UsageError: a machine lacks something; see also `run_tasks`."""
    request = plan.request
    cache = request.cache if "://" in request.cache else str(Path(request.cache).absolute())
    setting = Setting(replace(request, cache=cache, weights=request.choice().weights), features.name)
    tally, trusted = Tally(), set[str]()  # hosts whose rows have been seen in the cache

    def blocks() -> Iterator[Block]:
        """With paths that hold in another working directory; links stay, as other machines may have others."""
        for views, some in groupby(plan.pending, key=lambda item: item.views):
            rows = features.spec.block_rows(len(views), request.block_rows)
            while block := tuple(islice(some, rows)):
                yield tuple(replace(item, file=replace(item.file, path=item.file.path.absolute())) for item in block)

    with closing(run_tasks(cluster, BlockEncoder, setting, blocks(), _died)) as results:
        for block, done in results:
            # Media that have changed since they were planned become ledger lines; that a machine lacks others does not.
            if same := [item for item in done.absent if item.file.unchanged(item.status, item.digest)]:
                raise UsageError(
                    f"{len(same)} of {len(block)} media are not on {done.host} as they are here, such as "
                    f"{same[0].file.path}",
                    hint="put the media where all machines reach them, under the same path",
                )
            features.ledger.add_all(Entry(one.media, None, CHANGED.message, CHANGED.hint) for one in done.absent)
            tally.add(done.tally)
            tally.bad += len(done.absent)
            if done.host not in trusted:
                _require_rows(features, block, done)
                trusted.add(done.host)
            advance(len(block), note=f"{tally.bad} bad" if tally.bad else "")
    return tally


class BlockEncoder(Worker[Block, Done]):
    """In a worker process: the encoder and what goes with it, kept from block to block."""

    def __init__(self, setting: Setting, number: int | None) -> None:
        """Raises UsageError where this machine would give other numbers than the driver's, or lacks the cache."""
        request = self._request = setting.request
        try:
            self._features = Cache(request.cache).load(setting.set_name)
        except MissingObjectError as error:
            fault = f"{request.cache} does not hold the feature set {setting.set_name} that the driver has made there"
            raise UsageError(fault, hint=_SHARE_THE_CACHE) from error
        device = device_of_worker(request.device, number)
        self._encoder = build_encoder(request.choice(), device=device, compiled=request.compiled, limits=request.limits)
        if not would_give(self._encoder, self._features.spec):
            fault = f"the encoder would give other numbers than {setting.set_name} holds"
            raise UsageError(fault, hint="install the same epalm, and give the same weights, on all machines")
        self._stream: Stream | None = None

    def run(self, task: Block, threads: int) -> Done:
        """Encode and commit what the cache lacks of a block. Raises CacheError when the cache cannot be written."""
        if self._stream is None:
            torch.set_num_threads(threads)
            self._stream = Stream(self._encoder, self._features, self._request, cores=threads)
        here, absent = [], []
        for item in task:
            status = item.file.status()
            if status and item.file.unchanged(item.status, item.digest):
                here.append(replace(item, status=status))  # maybe a copy with other times
            else:
                absent.append(item)
        left = without_rows(self._features, here)
        self._stream.tally = Tally(elsewhere=len(here) - len(left))
        self._stream.go(left)
        return Done(socket.gethostname(), self._stream.tally, tuple(absent))

    def close(self) -> None:
        """End the decoding processes."""
        if self._stream:
            self._stream.close()


def _require_rows(features: FeatureSet, block: Block, done: Done) -> None:
    """Hold a host's first answer against the cache: it may write to a folder of its own of the same name."""
    began = time.monotonic()
    while len(without_rows(features, block)) > done.tally.bad + len(done.absent):
        if time.monotonic() - began > _SEEN_TIMEOUT:
            fault = f"what {done.host} has committed is not in {features.where} as this machine sees it"
            raise UsageError(fault, hint=_SHARE_THE_CACHE)
        time.sleep(_LOOK_AROUND)


def _died(block: Block) -> EpalmError:
    return EpalmError(
        f"all workers that encoded the block from {block[0].media} to {block[-1].media} died",
        hint=f"look into their logs: too little memory, or a file that breaks the encoder; {AGAIN}",
    )
