"""Who does the work of a command, as `--engine` and the options beside it say."""

from typing import TYPE_CHECKING

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.evaluate.decoding.remote import RemoteDecoder

ENGINES = ("local", "dask")


def require_engine(engine: str, scheduler: str | None) -> None:
    """Raises UsageError where there is no such engine, or it has no scheduler."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown", hint=f"use {' or '.join(ENGINES)}")
    if engine == "local" and scheduler:
        raise UsageError("--scheduler is for --engine dask", hint="add --engine dask")


def remote_decoder(
    processes: int, engine: str, scheduler: str | None, dask_workers: int, checkpoint: str, device: str
) -> "RemoteDecoder | None":
    """None: this process decodes. Raises UsageError: options that do not go together."""
    require_engine(engine, scheduler)
    if engine == "local" and processes == 1:
        return None
    if engine == "dask" and processes > 1:
        raise UsageError("--processes is for --engine local", hint="--dask-workers, or the cluster, says how many")
    from epalm.dask_cluster import Cluster
    from epalm.evaluate.decoding.remote import RemoteDecoder

    return RemoteDecoder(checkpoint, device, Cluster(scheduler, processes if engine == "local" else dask_workers))
