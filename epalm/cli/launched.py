"""A command that a launcher (torchrun, accelerate launch, srun) may start several times, as processes of one work."""

import functools
import io
import os
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from epalm.train.processes import Processes

_present: "list[Processes]" = []


def in_processes(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, which takes `device`, in every process of a launcher; the first one alone prints.

    A fault is told once. In one process it is the command itself, and nothing is imported.
    """

    @functools.wraps(command)
    def run(*, device: str, **options: Any) -> None:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            command(device=device, **options)
            return
        code = _run(functools.partial(command, **options), device)
        if code:
            raise typer.Exit(code)

    return run


def these_processes() -> "Processes":
    """Those of the launcher, or this one alone."""
    from epalm.train.processes import ALONE

    return _present[-1] if _present else ALONE


def _run(command: Callable[..., None], device: str) -> int:
    """The exit code of the command in this process."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # that a process has ended is told in one message
    from epalm.console import screen
    from epalm.train.processes import joined

    code = 0
    try:
        with joined(device) as (processes, own):
            _present.append(processes)
            screen.quiet = not processes.first
            with nullcontext() if processes.first else redirect_stdout(io.StringIO()):
                try:
                    command(device=own)
                except typer.Exit as ended:
                    code = ended.exit_code
    except Exception:
        screen.quiet = False  # whoever tells a fault is heard
        raise
    finally:
        _present.clear()
    return code
