"""The Dask cluster that work is sent to: connected to or started, looked after, its faults said in words.

Knows Dask, and that its machines must have the same software; knows nothing of the work. A scheduler is trusted with
code: its workers run what is sent to them, and this process reads what they send back.
"""

import logging
import pkgutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import epalm
from epalm.console import say, warn
from epalm.errors import EpalmError, UsageError

AGAIN = "what is done stays, and the same command goes on"
_START_TIMEOUT = 30.0  # seconds to reach a scheduler
_WORKER_TIMEOUT = 600.0  # seconds without any worker
_QUIET = 5.0  # seconds without any worker before the user is told: one that died is being replaced
_VERSION = "epalm:__version__"
_SAME = ("python", "dask", "distributed", "epalm")  # what one machine sends, the others have to read
# Ctrl-C reaches every process of the terminal; only this one is to act on it.
_WORKER_STARTS_WITH = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@dataclass(frozen=True)
class Cluster:
    """Which workers do the work."""

    scheduler: str | None = None  # URL, as tcp://HOST:PORT or tls://HOST:PORT; None: workers of this machine
    processes: int = 2  # workers to start on this machine, where there is no scheduler

    def __str__(self) -> str:
        return self.scheduler or "this machine"


def chosen_cluster(engine: str, scheduler: str | None, processes: int) -> Cluster | None:
    """What the options --engine, --scheduler and --dask-workers name; None: the work is done in this process.

    Raises:
        UsageError: there is no such engine, or it has no scheduler.
    """
    if engine not in ("local", "dask"):
        raise UsageError(f"--engine {engine!r} is unknown", hint="use local or dask")
    if engine == "local" and scheduler:
        raise UsageError("--scheduler is for --engine dask", hint="add --engine dask")
    return Cluster(scheduler, processes) if engine == "dask" else None


class Workers:
    """The workers of a scheduler, as this process sees them."""

    def __init__(self, client: Any, cluster: Cluster) -> None:
        """`client` is Dask's."""
        self.client, self._where = client, str(cluster)
        self._checked: set[str] = set()  # addresses

    def hosts(self) -> dict[str, int]:
        """Host → workers there now; waits for the first one, and looks at the software of new ones.

        Raises:
            UsageError: a machine has other software, or there is no worker for ten minutes.
            EpalmError: the scheduler is gone.
        """
        began, silent = time.monotonic(), True
        while not (threads := self.ask(self.client.nthreads)):
            waited = time.monotonic() - began
            if waited > _WORKER_TIMEOUT:
                raise UsageError(
                    f"no worker has come to the scheduler at {self._where} in {_WORKER_TIMEOUT / 60:.0f} minutes",
                    hint=f"start some: dask worker {self._where} --nthreads 1; {AGAIN}",
                )
            if waited > _QUIET and silent:
                say(f"dask: waiting for a worker to come to {self._where}")
                silent = False
            time.sleep(0.2)
        if new := threads.keys() - self._checked:
            self._require_same_software(new)
            if any(threads[address] > 1 for address in new):
                warn("a Dask worker does one task at a time, however many threads it has: --nthreads 1 is enough")
            self._checked |= new
        return dict(Counter(host_of(address) for address in threads))

    def ask(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What Dask answers. Raises EpalmError when the scheduler is gone."""
        from distributed import CancelledError

        lost = EpalmError(f"the scheduler at {self._where} is gone", hint=f"start it again; {AGAIN}")
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

        def look(run: Callable[..., Any], **some: Any) -> tuple[Any, Any]:
            # By functions of Python and Dask, as epalm may be missing there.
            try:
                return self.ask(run, get_versions, **some), self.ask(run, pkgutil.resolve_name, _VERSION, **some)
            except ImportError as error:  # raised by the scheduler; workers return it
                return None, error

        packages, versions = look(self.client.run, workers=list(workers), on_error="return")
        machines = [(f"the worker on {host_of(one)}", packages.get(one), versions.get(one)) for one in workers]
        if not self._checked:
            machines.insert(0, ("the scheduler", *look(self.client.run_on_scheduler)))
        mine = {**get_versions()["packages"], "epalm": epalm.__version__}
        for machine, answer, version in machines:
            if isinstance(version, ImportError):
                raise UsageError(f"{machine} cannot import epalm: {version}", hint="install the same epalm there")
            if not isinstance(answer, dict) or not isinstance(version, str):
                continue  # it has gone meanwhile
            its = {**answer["packages"], "epalm": version}
            for package in _SAME:
                parts = 2 if package == "python" else None  # bug-fix releases read each other
                here, there = (".".join(str(one.get(package)).split(".")[:parts]) for one in (mine, its))
                if here != there:
                    hint = "install the same versions on all machines"
                    raise UsageError(f"{machine} has {package} {there}, this machine {here}", hint=hint)


@contextmanager
def connected(cluster: Cluster) -> Iterator[Workers]:
    """The workers of a cluster, which is started and ended here where it has no scheduler.

    Raises:
        UsageError: nothing answers at the scheduler's address.
        EpalmError: the workers cannot be started.
    """
    from distributed import Client, LocalCluster
    from distributed.utils import silence_logging_cmgr
    from distributed.versions import VersionMismatchWarning

    with silence_logging_cmgr(logging.CRITICAL):  # what matters of Dask's words is an error or a message of ours
        if cluster.scheduler is None:
            try:
                local = LocalCluster(
                    n_workers=cluster.processes,
                    host="127.0.0.1",
                    threads_per_worker=1,
                    memory_limit=0,  # none: decoders of media have their own, and a large model is no leak
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    preload=[_WORKER_STARTS_WITH],
                    scheduler_kwargs={"allowed_failures": 0},  # deaths are counted by `run_tasks`
                )
            except (RuntimeError, OSError) as error:
                raise EpalmError(
                    f"{cluster.processes} worker processes cannot be started on this machine: {error}",
                    hint="start fewer, or free memory",
                ) from error
            with local, Client(local) as client:
                yield Workers(client, cluster)
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VersionMismatchWarning)  # an error here, with the machine's name
                client = Client(cluster.scheduler, timeout=_START_TIMEOUT)
        except (OSError, ValueError, TypeError, RuntimeError) as error:  # a timeout is an OSError
            raise UsageError(
                f"no scheduler answers at {cluster.scheduler}",
                hint="start one with: dask scheduler; then, on each machine, dask worker tcp://HOST:8786 --nthreads 1; "
                "for tls://, Dask's configuration names the certificates",
            ) from error
        with client:
            yield Workers(client, cluster)


def host_of(address: str) -> str:
    """The host of a worker's address, such as `tcp://HOST:PORT`."""
    return address.rsplit("://", maxsplit=1)[-1].rpartition(":")[0]
