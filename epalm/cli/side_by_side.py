"""Run chains of epalm commands in processes of their own, several chains side by side.

The tiny models of the playground gain nothing from a second core, two of them do. Knows command lines and log
files; does not know what the commands do.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from epalm.console import Advance, progress, say
from epalm.errors import EpalmError

_STOPPED = 130  # what a command returns after Ctrl-C


@dataclass(frozen=True)
class Command:
    """One epalm command: its words behind `epalm`, the file that takes all it prints, and one for its stdout alone."""

    words: tuple[str, ...]
    log: Path
    out: Path | None = None  # there once the command has ended well
    fine: tuple[int, ...] = (0,)  # exit codes that are no failure

    def __str__(self) -> str:
        return " ".join(("epalm", *self.words))


def run_chains(title: str, chains: Sequence[Iterable[Command]], *, unit: str, at_once: int) -> None:
    """Run every chain's commands in order, `at_once` chains at a time; a chain is a `unit`, for the progress.

    A command is asked for when the one before it has ended, so that it can be made of what that one has left.

    Raises:
        EpalmError: a command failed. Its chain stops there, chains that have not begun are dropped.
    """
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    with (
        progress(title, len(chains), unit) as advance,
        ThreadPoolExecutor(at_once) as pool,
    ):
        running = [pool.submit(_run_chain, chain, environment, advance) for chain in chains]
        try:
            for chain in running:
                chain.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_chain(chain: Iterable[Command], environment: dict[str, str], advance: Advance) -> None:
    for command in chain:
        started = time.monotonic()
        command.log.parent.mkdir(parents=True, exist_ok=True)
        draft = (command.out or command.log).with_suffix(".part")
        with command.log.open("wb") as log, draft.open("wb") as out:
            done = subprocess.run(
                [sys.executable, "-m", "epalm", *command.words],
                stdin=subprocess.DEVNULL,
                stdout=out if command.out else log,
                stderr=log,
                env=environment,
                check=False,
            )
        if done.returncode == _STOPPED:
            raise KeyboardInterrupt
        if done.returncode not in command.fine:
            raise EpalmError(
                f"`{command}` ended with exit code {done.returncode}: {_last_words(command.log)}",
                hint=f"all that it printed is in {command.log}",
            )
        if command.out:
            draft.replace(command.out)
        say(f"{time.monotonic() - started:6.1f} s  {command}")
    advance()


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1].removeprefix("error: ")
