"""Tasks on Dask workers: sent when a worker has room, given back when they end, sent again where a worker has died.

Also what a worker process keeps from task to task. Knows nothing of the work.
"""

import multiprocessing
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from epalm.console import say, warn
from epalm.cores import usable_cores
from epalm.dask_cluster import Cluster, connected, host_of
from epalm.errors import EpalmError

_MOST_TRIES = 3  # of a task whose workers die; a scheduler of the user's own gives up after four deaths each time
_AHEAD = 2  # tasks sent for each worker, so that none waits for this process
_LOOK_AROUND = 1.0  # seconds after which new workers are looked for, when no task is done before

Setting = TypeVar("Setting")
Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Worker(Protocol[Task_contra, Result_co]):
    """What a worker process keeps from task to task, such as a model. It does one task at a time."""

    def run(self, task: Task_contra, threads: int) -> Result_co:
        """Do a task on so many cores, a fair share of the machine's. An EpalmError ends the whole work."""
        ...

    def close(self) -> None:
        """Free everything; it is not used again."""
        ...


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

    with connected(cluster) as workers:
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


# In a worker process: several threads of it would share one model, and a GPU may not hold two, so there is one.
_lock = threading.Lock()
_kept: list[tuple[Any, Worker[Any, Any]]] = []  # (which worker, its setting), and itself; one or none


def _run_here(worker: Any, setting: Any, task: Any, hosts: Mapping[str, int], numbered: bool) -> Any:
    """A task's result; `hosts` says how many workers share each machine. Faults get this machine's name."""
    from distributed import get_worker

    this = get_worker()
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children
    with _lock:
        try:
            if not _kept or _kept[0][0] != (worker, setting):
                _drop()  # before the next one is made
                _kept.append(((worker, setting), worker(setting, this.name if numbered else None)))
            threads = max(1, usable_cores() // max(1, hosts.get(host_of(this.address), 1)))
            return _kept[0][1].run(task, threads)
        except EpalmError as error:
            raise type(error)(f"on {socket.gethostname()}: {error.message}", hint=error.hint) from error


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
