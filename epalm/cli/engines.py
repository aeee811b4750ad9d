"""Who does the work of a command, as `--engine` and the options beside it say."""

from typing import TYPE_CHECKING

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.evaluate.decoding.spread import Elsewhere

ENGINES = ("local", "dask")


def require_engine(engine: str, scheduler: str | None) -> None:
    """Raises UsageError where there is no such engine, or it has no scheduler."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown", hint=f"use {' or '.join(ENGINES)}")
    if engine == "local" and scheduler:
        raise UsageError("--scheduler is for --engine dask", hint="add --engine dask")


def decoding_elsewhere(
    processes: int, engine: str, scheduler: str | None, dask_workers: int, checkpoint: str, device: str
) -> "Elsewhere | None":
    """Who decodes; None: this process. Raises UsageError: options that do not go together."""
    require_engine(engine, scheduler)
    if engine == "local" and processes == 1:
        return None
    from epalm.evaluate.decoding.dask_decoding import DaskDecoding
    from epalm.evaluate.decoding.decoding_processes import DecodingProcesses
    from epalm.evaluate.decoding.spread import Elsewhere

    if engine == "local":
        return Elsewhere(DecodingProcesses(processes), checkpoint, device)
    if processes > 1:
        raise UsageError("--processes is for --engine local", hint="--dask-workers, or the cluster, says how many")
    return Elsewhere(DaskDecoding(scheduler, dask_workers), checkpoint, device)
