"""The Dask cluster that work is shared out on: found or started, looked after, its faults said in words.

Knows Dask, and that its machines must have the same software; knows nothing of the work.
"""

import logging
import pkgutil
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import epalm
from epalm.console import say, warn
from epalm.errors import EpalmError, UsageError

_START_TIMEOUT = 30.0  # seconds to reach a scheduler
_WORKER_TIMEOUT = 600.0  # seconds without any worker
_QUIET = 5.0  # seconds without any worker that are not worth a word: one that died is being replaced
_VERSION = "epalm:__version__"
_SAME = ("python", "dask", "distributed")  # packages: what one machine sends, the others have to read
AGAIN = "what is done stays, and the same command goes on"
# Ctrl-C reaches every process of the terminal; only the driver is to act on it.
_WORKER_STARTS_WITH = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


class Cluster:
    """A connection to a scheduler and, through it, to its workers."""

    def __init__(self, client: Any, where: str) -> None:
        """`client` is Dask's; `where` is how the user knows the scheduler."""
        self._client, self._where = client, where
        self._checked: set[str] = set()  # addresses of workers

    def processes(self) -> dict[str, int]:
        """Host → worker processes there now; waits for the first one, and looks at the software of new ones.

        Raises:
            UsageError: a machine has other software, or there is no worker for ten minutes.
            EpalmError: the scheduler is gone.
        """
        began, said = time.monotonic(), False
        while not (threads := self._ask(self._client.nthreads)):
            waited = time.monotonic() - began
            if waited > _WORKER_TIMEOUT:
                raise UsageError(
                    f"no worker has come to the scheduler at {self._where} in {_WORKER_TIMEOUT / 60:.0f} minutes",
                    hint=f"start some: dask worker {self._where} --nthreads 1; {AGAIN}",
                )
            if waited > _QUIET and not said:
                say(f"dask: waiting for a worker to come to {self._where}")
                said = True
            time.sleep(0.2)
        if new := threads.keys() - self._checked:
            self._require_same_software(new)
            if any(threads[address] > 1 for address in new):
                warn("a Dask worker does one task at a time, however many threads it has: --nthreads 1 is enough")
            self._checked |= new
        return dict(Counter(host_of(address) for address in threads))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Dask's future of a call by some worker; the same call twice is two."""
        return self._ask(lambda: self._client.submit(function, *arguments, pure=False))

    def on_all(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have every worker that answers call this, beside what it works on."""
        with suppress(EpalmError):
            self._ask(lambda: self._client.run(function, *arguments, on_error="ignore"))

    def lost(self) -> EpalmError:
        """The error for a scheduler that does not answer any more."""
        return EpalmError(f"the scheduler at {self._where} is gone", hint=f"start it again; {AGAIN}")

    def _ask(self, question: Callable[[], Any]) -> Any:
        # A client whose scheduler is gone would try for a while to come back, its tasks lost.
        if self._client.status != "running":
            raise self.lost()
        try:
            return question()
        except OSError as error:  # also a timeout, and what Dask calls a closed communication
            raise self.lost() from error

    def _require_same_software(self, workers: set[str]) -> None:
        """Look at these workers; asked are no others, as one that has just died takes long not to answer."""
        from distributed.versions import get_versions

        mine = {**get_versions()["packages"], "epalm": epalm.__version__}
        packages, versions = self._run_on(workers, get_versions), self._run_on(workers, pkgutil.resolve_name, _VERSION)
        machines = [(f"the worker on {host_of(one)}", packages.get(one), versions.get(one)) for one in workers]
        if not self._checked:
            version = self._ask(self._scheduler_version)
            machines.insert(0, ("the scheduler", self._ask(self._scheduler_packages), version))
        for machine, told, version in machines:
            if isinstance(version, ImportError):
                raise UsageError(f"{machine} cannot import epalm: {version}", hint="install the same epalm there")
            its = dict(told["packages"]) if isinstance(told, dict) else {}  # else it has gone meanwhile
            _require_same(machine, mine, its | ({"epalm": version} if isinstance(version, str) else {}))

    # Asked for with functions of Python and Dask, as epalm may be missing.

    def _run_on(self, workers: set[str], function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(
            lambda: self._client.run(function, *arguments, workers=list(workers), on_error="return")
        )
        return found

    def _scheduler_packages(self) -> Any:
        from distributed.versions import get_versions

        return self._client.run_on_scheduler(get_versions)

    def _scheduler_version(self) -> Any:
        try:
            return self._client.run_on_scheduler(pkgutil.resolve_name, _VERSION)
        except ImportError as error:
            return error


@contextmanager
def cluster(scheduler: str | None, processes: int) -> Iterator[Cluster]:
    """The cluster of the scheduler at that address; without one, `processes` workers of this machine, for a while.

    Raises:
        UsageError: Dask is not installed, or nothing answers there.
    """
    try:
        from distributed import Client, LocalCluster
        from distributed.versions import VersionMismatchWarning
    except ImportError as error:
        raise UsageError("--engine dask needs Dask", hint="pip install 'epalm[dask]'") from error
    if scheduler is None:
        with _quiet():
            try:
                local = LocalCluster(
                    n_workers=processes,
                    threads_per_worker=1,
                    memory_limit=0,  # none: decoders of media have their own, and a large model is no leak
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    preload=[_WORKER_STARTS_WITH],
                    scheduler_kwargs={"allowed_failures": 0},  # who counts deaths is `Tasks`
                )
            except (RuntimeError, OSError) as error:
                raise EpalmError(
                    f"{processes} worker processes cannot be started on this machine: {error}",
                    hint="start fewer, or free memory",
                ) from error
            with local, Client(local) as client:
                yield Cluster(client, "this machine")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # an error here, with the machine's name
            client = Client(scheduler, timeout=_START_TIMEOUT)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise UsageError(
            f"no scheduler answers at {scheduler}",
            hint="start one with: dask scheduler; then, on each machine, dask worker tcp://HOST:8786 --nthreads 1",
        ) from error
    with _quiet(), client:
        yield Cluster(client, scheduler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own words off the screen: what matters of them is an error or a message of ours."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in ("distributed", "distributed.client")}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def host_of(address: str) -> str:
    """The host of a worker's address, such as `tcp://HOST:PORT`."""
    return address.rsplit("://", maxsplit=1)[-1].rpartition(":")[0]


@contextmanager
def on_this_host() -> Iterator[str]:
    """In a worker: the name of its machine, which faults inside are told with."""
    host = socket.gethostname()
    try:
        yield host
    except EpalmError as error:
        raise type(error)(f"on {host}: {error.message}", hint=error.hint) from error


def sharing(processes: Mapping[str, int]) -> int:
    """In a worker: how many share this machine's cores, of host → workers, by the address that Dask gave this one."""
    from distributed import get_worker

    return max(1, processes.get(host_of(get_worker().address), 1))


def own_gpu(gpus: int) -> int:
    """In a worker that was started for this, on this machine: the number of its GPU of so many."""
    from distributed import get_worker

    number: int = get_worker().name  # 0, 1, …
    return number % gpus


def _require_same(machine: str, mine: Mapping[str, Any], its: Mapping[str, Any]) -> None:
    for package in (*_SAME, "epalm"):
        here, there = _release(package, mine.get(package)), _release(package, its.get(package))
        if package in its and here != there:
            raise UsageError(
                f"{machine} has {package} {there}, this machine {here}",
                hint="install the same versions on all machines",
            )


def _release(package: str, version: Any) -> str:
    """What of a version has to be the same."""
    return ".".join(str(version).split(".")[:2]) if package == "python" else str(version)
