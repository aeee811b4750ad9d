"""Stage 1 on many machines: a Dask task is one block. The driver plans; workers encode, commit and count.

Media and cache lie on storage that all of them reach. A worker may die, join late or run a task twice: what is
committed already is not committed again.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.console import Advance, say
from epalm.dask_cluster import Cluster, cluster
from epalm.dask_tasks import Tasks
from epalm.errors import EpalmError, UsageError
from epalm.extract.dask_task import BlockDone, BlockTask, Setting, encode_block, let_go
from epalm.extract.encoders.registry import EncoderChoice
from epalm.extract.media.limits import Limits
from epalm.extract.plan import Pending, Plan
from epalm.extract.stream import CHANGED, Tally

_LOOK_AROUND = 1.0  # seconds between two looks at what another machine has written
_SEEN_TIMEOUT = 90.0  # seconds until what another machine wrote is seen here: network drives remember folders for 60


@dataclass(frozen=True)
class DaskEngine:
    """The workers of a cluster: at `scheduler`, or `processes` of this machine started for the purpose."""

    choice: EncoderChoice
    cache: str
    limits: Limits
    scheduler: str | None = None
    processes: int = 2
    device: str = "auto"
    compiled: bool = False
    batch_size: int = 32
    workers: int | None = None  # decoding processes of each worker [the cores, shared out among them]
    block_rows: int = 512
    timeout: float = 120.0

    def __call__(self, plan: Plan, features: FeatureSet, advance: Advance) -> Tally:
        """See `Engine`.

        Raises:
            UsageError: Dask is not installed, no scheduler answers, or a machine lacks something or has another.
            EpalmError: the scheduler is gone, or a block's workers die again and again.
        """
        setting = Setting(
            self.choice, _reachable(self.cache), features.name, self.limits, self.device, self.compiled,
            self.batch_size, self.workers, self.block_rows, self.timeout, numbered=self.scheduler is None,
        )  # fmt: skip
        with cluster(self.scheduler, self.processes) as workers:
            say(f"dask: {sum(workers.processes().values())} workers")
            tally = _Run(workers, features, advance).go(_blocks(plan, setting))
            workers.on_all(let_go, setting)
        return tally


class _Run:
    """One extraction on a cluster."""

    def __init__(self, workers: Cluster, features: FeatureSet, advance: Advance) -> None:
        self._features, self._advance = features, advance
        self._tasks: Tasks[BlockTask, BlockDone] = Tasks(workers, encode_block, _died)
        self._tally = Tally()
        self._trusted: set[str] = set()  # hosts whose rows have been seen in the cache

    def go(self, blocks: Iterator[BlockTask]) -> Tally:
        """Have all blocks encoded; a fault or Ctrl-C cancels what waits."""
        with closing(self._tasks.results(blocks)) as results:
            for task, done in results:
                self._take(done, task)
        return self._tally

    def _take(self, done: BlockDone, task: BlockTask) -> None:
        if done.absent:
            self._go_on_without(done.absent, task, done.host)
            return
        for one in fields(Tally):
            setattr(self._tally, one.name, getattr(self._tally, one.name) + getattr(done.tally, one.name))
        if done.host not in self._trusted:
            self._require_rows(task, done)
            self._trusted.add(done.host)
        self._report(len(task.items))

    def _go_on_without(self, absent: Sequence[Pending], task: BlockTask, host: str) -> None:
        """Media that have changed since they were planned become ledger lines; that others are absent is an error."""
        if same := [item for item in absent if item.unchanged()]:
            raise UsageError(
                f"{len(same)} of {len(task.items)} media are not on {host} as they are here, such as "
                f"{same[0].file.path}",
                hint="put the media where all machines reach them, under the same path",
            )
        self._features.ledger.add_all(Entry(item.media, None, CHANGED.message, CHANGED.hint) for item in absent)
        self._tally.bad += len(absent)
        self._report(len(absent))
        if rest := tuple(item for item in task.items if item not in absent):
            self._tasks.add(replace(task, items=rest))

    def _require_rows(self, task: BlockTask, done: BlockDone) -> None:
        """Hold a host's first answer against the cache: it may write to a folder of its own of the same name."""
        began = time.monotonic()
        while True:
            held = [self._features.rows(view) for view in task.views]
            lacking = [item for item in task.items if not all(item.digest in rows for rows in held)]
            if len(lacking) <= done.tally.bad:
                return
            if time.monotonic() - began > _SEEN_TIMEOUT:
                raise UsageError(
                    f"what {done.host} has committed is not in {self._features.where} as this machine sees it",
                    hint="put the cache where all machines reach it: a shared folder, or a URL such as "
                    "s3://bucket/cache",
                )
            time.sleep(_LOOK_AROUND)

    def _report(self, media: int) -> None:
        self._advance(media, note=f"{self._tally.bad} bad" if self._tally.bad else "")


def _died(task: BlockTask) -> EpalmError:
    return EpalmError(
        f"all workers that encoded the block from {task.items[0].media} to {task.items[-1].media} died",
        hint="look into their logs: too little memory, or a file that breaks the encoder; what is committed stays, and "
        "the same command goes on",
    )


def _blocks(plan: Plan, setting: Setting) -> Iterator[BlockTask]:
    for views, items in plan.by_views():
        for first in range(0, len(items), setting.block_rows):
            chosen = tuple(_everywhere(item) for item in items[first : first + setting.block_rows])
            yield BlockTask(setting, views, chosen)


def _reachable(cache: str) -> str:
    """The cache as a worker with another working directory finds it."""
    return cache if "://" in cache else str(Path(cache).absolute())


def _everywhere(item: Pending) -> Pending:
    """The same with a path that holds in another working directory; links stay, other machines may have others."""
    return replace(item, file=replace(item.file, path=item.file.path.absolute()))
