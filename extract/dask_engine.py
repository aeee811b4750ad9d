"""Stage 1 on many machines: a Dask task is one block. The driver plans; workers encode, commit and count.

Media and cache lie on storage that all of them reach. A worker may die, join late or run a task twice: what is
committed already is not committed again.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from epalm.cache.feature_set import FeatureSet
from epalm.console import Advance, say
from epalm.errors import EpalmError, UsageError
from epalm.extract.dask_task import BlockTask, Setting, encode_block
from epalm.extract.encoders import EncoderChoice
from epalm.extract.limits import Limits
from epalm.extract.plan import Pending, Plan
from epalm.extract.stream import Tally

_MOST_TRIES = 5  # of a block whose workers keep dying, each beyond what the scheduler tries by itself
_WAITING_PER_THREAD = 2  # blocks sent ahead, so that no worker waits for the driver
_START_TIMEOUT = 30.0  # seconds to reach a scheduler


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
    tally: Tally = field(default_factory=Tally)

    def __call__(self, plan: Plan, features: FeatureSet, advance: Advance) -> Tally:
        """See `Engine`.

        Raises:
            UsageError: Dask is not installed, or no scheduler answers.
            EpalmError: a worker has other weights or code, or a block's workers die again and again.
        """
        blocks = list(self._blocks(plan, features))
        with self._client() as client:
            say(f"dask: {len(client.scheduler_info()['workers'])} workers, dashboard {client.dashboard_link}")
            self._run(client, blocks, advance)
        return self.tally

    def _blocks(self, plan: Plan, features: FeatureSet) -> Iterator[BlockTask]:
        setting = Setting(
            self.choice, _reachable(self.cache), features.name, self.limits, self.device, self.compiled,
            self.batch_size, self.workers, self.block_rows, self.timeout,
        )  # fmt: skip
        for views, items in plan.by_views():
            for first in range(0, len(items), self.block_rows):
                chosen = tuple(_everywhere(item) for item in items[first : first + self.block_rows])
                yield BlockTask(setting, views, chosen)

    def _run(self, client: Any, blocks: list[BlockTask], advance: Advance) -> None:
        from distributed import KilledWorker, as_completed

        tries: Counter[int] = Counter()
        left = iter(range(len(blocks)))
        running: dict[Any, int] = {}  # future → number of its block
        completed = as_completed()

        def submit(number: int) -> None:
            # Not `pure`: the same block tried again is another task.
            future = client.submit(encode_block, blocks[number], _per_host(client), pure=False)
            running[future] = number
            completed.add(future)

        def fill() -> None:
            threads = sum(worker["nthreads"] for worker in client.scheduler_info()["workers"].values())
            while len(running) < _WAITING_PER_THREAD * max(1, threads):
                number = next(left, None)
                if number is None:
                    return
                submit(number)

        fill()
        for future in completed:
            number = running.pop(future)
            try:
                done: Tally = future.result()
            except KilledWorker as error:
                tries[number] += 1
                if tries[number] == _MOST_TRIES:
                    names = f"{blocks[number].items[0].media} … {blocks[number].items[-1].media}"
                    raise EpalmError(
                        f"the workers that encoded the block of {names} died {tries[number]} times",
                        hint="look into the workers' logs: too little memory, or a file that breaks the encoder; "
                        "the same command goes on with the rest",
                    ) from error
                submit(number)
                continue
            for one in fields(Tally):
                setattr(self.tally, one.name, getattr(self.tally, one.name) + getattr(done, one.name))
            advance(len(blocks[number].items), note=f"{self.tally.bad} bad" if self.tally.bad else "")
            fill()

    @contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise UsageError("--engine dask needs Dask", hint="pip install 'epalm[dask]'") from error
        if self.scheduler is None:
            with (
                LocalCluster(
                    n_workers=self.processes,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.ERROR,
                ) as cluster,
                Client(cluster) as client,
            ):
                yield client
            return
        try:
            client = Client(self.scheduler, timeout=_START_TIMEOUT)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise UsageError(
                f"no scheduler answers at {self.scheduler}", hint="start one with: dask scheduler, then dask worker"
            ) from error
        with client:
            yield client


def _reachable(cache: str) -> str:
    """The cache as a worker with another working directory finds it."""
    return cache if "://" in cache else str(Path(cache).resolve())


def _everywhere(item: Pending) -> Pending:
    """The same with a path that holds in another working directory."""
    return replace(item, file=replace(item.file, path=item.file.path.resolve()))


def _per_host(client: Any) -> dict[str, int]:
    """Host → worker threads there: these share its cores."""
    found: Counter[str] = Counter()
    for worker in client.scheduler_info()["workers"].values():
        found[worker["host"]] += worker["nthreads"]
    return dict(found)
