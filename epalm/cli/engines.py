"""Who does the work of a command, as `--engine` and the options beside it say."""

from epalm.errors import UsageError

ENGINES = ("local", "dask")


def require_engine(engine: str, scheduler: str | None) -> None:
    """Raises UsageError where there is no such engine, or it has no scheduler."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown", hint=f"use {' or '.join(ENGINES)}")
    if engine == "local" and scheduler:
        raise UsageError("--scheduler is for --engine dask", hint="add --engine dask")
