"""Tasks on a cluster: sent as its workers have room, given back as they end, sent again where a worker has died.

Also what a worker keeps from task to task. Knows nothing of the work.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from epalm.console import warn
from epalm.dask_cluster import Cluster
from epalm.errors import EpalmError

_MOST_TRIES = (
    3  # of a task whose workers die, each of them four deaths by the rule of a scheduler that the user has started
)
_AHEAD = 2  # tasks sent for each worker process, so that none waits for the driver
_LOOK_AROUND = 1.0  # seconds after which new workers are looked for, when no task is done before

Task = TypeVar("Task")
Result = TypeVar("Result")
Setting = TypeVar("Setting")
Kit = TypeVar("Kit")


@dataclass(frozen=True)
class _Attempt(Generic[Task]):
    task: Task
    number: int = 1


class Tasks(Generic[Task, Result]):
    """Calls of one function, which takes a task and how many workers there are on each host."""

    def __init__(
        self,
        workers: Cluster,
        function: Callable[[Task, Mapping[str, int]], Result],
        died: Callable[[Task], EpalmError],
    ) -> None:
        """`died` gives the error for a task whose workers die again and again."""
        self._workers, self._function, self._died = workers, function, died
        self._running: dict[Any, _Attempt[Task]] = {}  # by Dask's future
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures

    def results(self, tasks: Iterator[Task]) -> Generator[tuple[Task, Result]]:
        """Every task with its result, in the order in which they end; a fault or Ctrl-C cancels what waits.

        Raises:
            EpalmError: what a task raised, the scheduler is gone, or a task's workers die again and again.
        """
        try:
            while self._send(tasks):
                try:
                    future = self._finished.get(timeout=_LOOK_AROUND)
                except queue.Empty:
                    continue
                attempt = self._running.pop(future)
                if self._killed(future, attempt):
                    self._submit(replace(attempt, number=attempt.number + 1))
                else:
                    yield attempt.task, future.result()
        finally:
            for future in self._running:
                future.cancel()

    def add(self, task: Task) -> None:
        """One more, while results are taken."""
        self._submit(_Attempt(task))

    def _send(self, tasks: Iterator[Task]) -> bool:
        """Keep every worker in work that is there now; whether there is anything to wait for."""
        processes = self._workers.processes()
        while len(self._running) < _AHEAD * sum(processes.values()):
            try:
                self._submit(_Attempt(next(tasks)))
            except StopIteration:
                break
        return bool(self._running)

    def _submit(self, attempt: _Attempt[Task]) -> None:
        future = self._workers.submit(self._function, attempt.task, self._workers.processes())
        self._running[future] = attempt
        future.add_done_callback(self._finished.put)

    def _killed(self, future: Any, attempt: _Attempt[Task]) -> bool:
        """Whether the task is to be tried again."""
        from distributed import CancelledError, KilledWorker

        try:
            future.result()
        except KilledWorker as error:
            if attempt.number < _MOST_TRIES:
                warn(f"a worker died, and its task is given to another: try {attempt.number + 1} of {_MOST_TRIES}")
                return True
            raise self._died(attempt.task) from error
        except CancelledError as error:
            raise self._workers.lost() from error
        except EpalmError:
            raise
        except Exception:
            self._workers.processes()  # one that came a moment ago may have other software, and is named then
            raise
        return False


class Kept(Generic[Setting, Kit]):
    """What a worker process keeps from task to task: made for the latest setting, used by one task at a time.

    A worker may have several threads; they would share one model.
    """

    def __init__(self, make: Callable[[Setting], Kit], close: Callable[[Kit], None] = lambda _: None) -> None:
        self._make, self._close = make, close
        self._lock = threading.Lock()
        self._held: list[tuple[Setting, Kit]] = []

    @contextmanager
    def using(self, setting: Setting) -> Iterator[Kit]:
        """The kit of that setting, alone."""
        with self._lock:
            if not self._held or self._held[0][0] != setting:
                self._drop()  # before the next one is made: a GPU may not hold two
                self._held.append((setting, self._make(setting)))
            yield self._held[0][1]

    def let_go(self, setting: Setting) -> None:
        """Free what is kept for that setting, unless it is in use."""
        if self._lock.acquire(blocking=False):
            try:
                if self._held and self._held[0][0] == setting:
                    self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        while self._held:
            self._close(self._held.pop()[1])
