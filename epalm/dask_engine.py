"""Tasks on Dask workers: sent when a worker has room, given back when they end, sent again where a worker has died.

The cluster is connected to or started, looked after, and its faults become messages; a worker process keeps something
from task to task. Knows nothing of the work. A scheduler is trusted with code: its workers run what is sent to them,
and this process reads what they send back.
"""

import logging
import multiprocessing
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from epalm.console import say, warn
from epalm.errors import EpalmError, UsageError

AGAIN = "what is done stays, and the same command goes on"
_START_TIMEOUT = 30.0  # seconds to reach a scheduler
_WORKER_TIMEOUT = 600.0  # seconds without any worker
_QUIET = 5.0  # seconds without any worker before the user is told: one that died is being replaced
_MOST_TRIES = 3  # of a task whose workers die; a scheduler of the user's own gives up after four deaths each time
_AHEAD = 2  # tasks sent for each worker, so that none waits for this process
_LOOK_AROUND = 1.0  # seconds after which new workers are looked for, when no task is done before
_SAME = ("python", "dask", "distributed", "epalm")  # what one machine sends, the others have to read
# Ctrl-C reaches every process of the terminal; only this one is to act on it.
_WORKER_STARTS_WITH = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"

Setting = TypeVar("Setting")
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cluster:
    """Which workers do the work."""

    scheduler: str | None = None  # URL, as tcp://HOST:PORT or tls://HOST:PORT; None: workers of this machine
    processes: int = 2  # workers to start on this machine, where there is no scheduler

    def __str__(self) -> str:
        return self.scheduler or "this machine"


def chosen_cluster(engine: str, scheduler: str | None, processes: int) -> Cluster | None:
    """What --engine, --scheduler and --dask-workers name; None: this process. Raises UsageError: they do not fit."""
    if engine not in ("local", "dask"):
        raise UsageError(f"--engine {engine!r} is unknown", hint="use local or dask")
    if engine == "local" and scheduler:
        raise UsageError("--scheduler is for --engine dask", hint="add --engine dask")
    return Cluster(scheduler, processes) if engine == "dask" else None


class Worker(Generic[Task, Result]):
    """What a worker process keeps from task to task, such as a model. It does one task at a time."""

    def run(self, task: Task, threads: int) -> Result:
        """Do a task on so many cores, a fair share of the machine's. An EpalmError ends the whole work."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what does not go with this object; it is not used again."""


def run_tasks(
    cluster: Cluster,
    worker: Callable[[Setting, int | None], Worker[Task, Result]],
    setting: Setting,
    tasks: Iterator[Task],
    died: Callable[[Task], EpalmError],
) -> Generator[tuple[Task, Result]]:
    """Every task with its result, in the order in which they end; closing the generator cancels what waits.

    Each worker process calls `worker(setting, number)` for its first task and keeps what it gets while the setting is
    the same. `number` counts the workers from 0 where they are started on this machine, so that each can take a GPU of
    its own; else it is None. Both have to be picklable, and the setting comparable. Tasks are taken from the iterator
    as there is room. `died` gives the error for a task whose workers die again and again.

    Raises:
        UsageError: no scheduler answers, no worker comes, or a machine has other software.
        EpalmError: what a task raised, with the name of its machine; what `died` gave; or the scheduler is gone.
    """
    from distributed import CancelledError, KilledWorker, wait

    with _connected(cluster) as workers:
        say(f"dask: {sum(workers.hosts().values())} workers")
        running: dict[Any, tuple[Task, int]] = {}  # Dask's future → task, which try of it

        def send(task: Task, number: int) -> None:
            order = (worker, setting, task, workers.hosts(), cluster.scheduler is None)
            running[workers.ask(workers.client.submit, _run_here, *order, pure=False)] = task, number

        try:
            while True:
                room = _AHEAD * sum(workers.hosts().values()) - len(running)
                for _, task in zip(range(room), tasks, strict=False):
                    send(task, 1)
                if not running:
                    return
                with suppress(TimeoutError, CancelledError):
                    wait(list(running), timeout=_LOOK_AROUND, return_when="FIRST_COMPLETED")
                for future in [one for one in running if one.done()]:
                    task, number = running.pop(future)
                    fault = workers.ask(future.exception)
                    if fault is None:
                        yield task, workers.ask(future.result)
                    elif not isinstance(fault, KilledWorker):
                        if not isinstance(fault, EpalmError):
                            workers.hosts()  # one that came a moment ago may have other software, and is named then
                        raise fault
                    elif number == _MOST_TRIES:
                        raise died(task) from fault
                    else:
                        warn(f"a worker died, and its task is given to another: try {number + 1} of {_MOST_TRIES}")
                        send(task, number + 1)
        finally:
            for future in running:
                future.cancel()
            with suppress(EpalmError):  # beside what a worker is at work on
                workers.ask(workers.client.run, _let_go, worker, setting, on_error="ignore")


class _Workers:
    """The workers of a scheduler, as this process sees them."""

    def __init__(self, client: Any, cluster: Cluster) -> None:
        self.client, self._cluster = client, cluster
        self._checked: set[str] = set()  # addresses

    def hosts(self) -> dict[str, int]:
        """Host → workers there now; waits for the first one, and looks at new ones' software. Raises as `run_tasks`."""
        began, waiting_is_shown = time.monotonic(), False
        while not (addresses := set(self.ask(self.client.nthreads))):
            waited = time.monotonic() - began
            if waited > _WORKER_TIMEOUT:
                raise UsageError(
                    f"no worker has come to the scheduler at {self._cluster} in {_WORKER_TIMEOUT / 60:.0f} minutes",
                    hint=f"start some: dask worker {self._cluster} --nthreads 1; {AGAIN}",
                )
            if waited > _QUIET and not waiting_is_shown:
                say(f"dask: waiting for a worker to come to {self._cluster}")
                waiting_is_shown = True
            time.sleep(0.2)
        if new := addresses - self._checked:
            self._require_same_software(new)
            self._checked |= new
        return dict(Counter(map(_host_of, addresses)))

    def ask(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What Dask answers. Raises EpalmError when the scheduler is gone."""
        from distributed import CancelledError

        lost = EpalmError(f"the scheduler at {self._cluster} is gone", hint=f"start it again; {AGAIN}")
        # A client whose scheduler is gone would try for a while to come back, its tasks lost.
        if self.client.status != "running":
            raise lost
        try:
            return question(*arguments, **options)
        except (OSError, CancelledError) as error:  # also a timeout, and what Dask calls a closed communication
            raise lost from error

    def _require_same_software(self, workers: set[str]) -> None:
        """Look at these workers; no others are asked, as one that has just died takes long not to answer."""
        from distributed.versions import get_versions

        asked = (get_versions, ["epalm"])  # a function of Dask, as epalm may be missing there
        answers = self.ask(self.client.run, *asked, workers=list(workers), on_error="ignore")
        machines = [(f"the worker on {_host_of(one)}", answer) for one, answer in answers.items()]
        if not self._checked:
            machines.insert(0, ("the scheduler", self.ask(self.client.run_on_scheduler, *asked)))
        mine = get_versions(["epalm"])["packages"]
        for machine, answer in machines:
            for package in _SAME:
                parts = 2 if package == "python" else None  # bug-fix releases read each other
                here, there = (str(one[package]).split(".")[:parts] for one in (mine, answer["packages"]))
                if here != there:
                    found = f"{package} {'.'.join(there)}" if there != ["None"] else f"no {package}"
                    fault = f"{machine} has {found}, this machine {'.'.join(here)}"
                    raise UsageError(fault, hint="install the same versions on all machines")


@contextmanager
def _connected(cluster: Cluster) -> Iterator[_Workers]:
    """The workers of a cluster, which is started and ended here where it has no scheduler. Raises as `run_tasks`."""
    import dask
    from distributed import Client, LocalCluster
    from distributed.utils import silence_logging_cmgr
    from distributed.versions import VersionMismatchWarning

    warnings.simplefilter("ignore", VersionMismatchWarning)  # an error here, with the machine's name
    # Dask has workers' C library give every freed buffer back to the kernel: a third of a small model's step on a CPU.
    keep_buffers = dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})
    # What matters of Dask's words is an error or a message of ours.
    with keep_buffers, silence_logging_cmgr(logging.CRITICAL), ExitStack() as stack:
        try:
            where = cluster.scheduler or stack.enter_context(
                LocalCluster(
                    n_workers=cluster.processes,
                    host="127.0.0.1",
                    threads_per_worker=1,
                    memory_limit=0,  # none: decoders of media have their own, and a large model is no leak
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    preload=[_WORKER_STARTS_WITH],
                    scheduler_kwargs={"allowed_failures": 0},  # deaths are counted by `run_tasks`
                )
            )
            client = stack.enter_context(Client(where, timeout=_START_TIMEOUT))
        except (OSError, ValueError, TypeError, RuntimeError) as error:  # a timeout is an OSError
            if cluster.scheduler is None:
                fault = f"{cluster.processes} worker processes cannot be started on this machine: {error}"
                raise EpalmError(fault, hint="start fewer, or free memory") from error
            raise UsageError(
                f"no scheduler answers at {cluster.scheduler}",
                hint="start one with: dask scheduler; then, on each machine, dask worker tcp://HOST:8786 --nthreads 1; "
                "for tls://, Dask's configuration names the certificates",
            ) from error
        yield _Workers(client, cluster)


def _host_of(address: str) -> str:
    """The host of a worker's address, such as `tcp://HOST:PORT`."""
    return address.rsplit("://", maxsplit=1)[-1].rpartition(":")[0]


def device_of_worker(device: str, number: int | None) -> str:
    """What a worker process computes on: those of one machine (`number` 0, 1, …) take a GPU each if there are any.

    `number` None is a worker of the user's own: its GPU is the one that it sees.
    """
    import torch

    gpus = torch.cuda.device_count() if number is not None and device in ("auto", "cuda") else 0
    return f"cuda:{number % gpus}" if number is not None and gpus else device


# In a worker process: several threads of it would share one model, and a GPU may not hold two, so there is one.
_lock = threading.Lock()
_kept: list[tuple[Any, Worker[Any, Any]]] = []  # (which worker, its setting), and itself; one or none


def _run_here(worker: Any, setting: Any, task: Any, hosts: Mapping[str, int], numbered: bool) -> Any:
    """A task's result; `hosts` says how many workers share each machine. Faults get this machine's name."""
    from dask.system import cpu_count
    from distributed import get_worker

    this = get_worker()
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children
    with _lock:
        try:
            if not _kept or _kept[0][0] != (worker, setting):
                _drop()  # before the next one is made
                _kept.append(((worker, setting), worker(setting, this.name if numbered else None)))
            threads = max(1, cpu_count() // max(1, hosts.get(_host_of(this.address), 1)))
            return _kept[0][1].run(task, threads)
        except EpalmError as error:
            raise error.at(f"on {socket.gethostname()}") from error


def _let_go(worker: Any, setting: Any) -> None:
    """Free what is kept for that setting, unless it is at work."""
    if _lock.acquire(blocking=False):
        try:
            if _kept and _kept[0][0] == (worker, setting):
                _drop()
        finally:
            _lock.release()


def _drop() -> None:
    while _kept:
        _kept.pop()[1].close()
