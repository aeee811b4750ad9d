"""Ctrl-C and SIGTERM while work runs that can save first: the first asks for that, the next one stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from epalm.console import say

Result = TypeVar("Result")


def until_stopped(work: Callable[[Callable[[], bool]], Result | None]) -> tuple[Result | None, int]:
    """What `work` comes to, and 0; after Ctrl-C or SIGTERM, None and the exit code that shells give these: 130, 143."""
    with asked_to_stop(lambda: say("stopping after this step; once more stops at once")) as signals:
        try:
            result = work(lambda: bool(signals))
        except KeyboardInterrupt:
            say("stopped; the run keeps its last checkpoint, and the same command goes on from there")
            result = None
    return result, 0 if result is not None else 128 + (signals or [signal.SIGINT])[0]


@contextmanager
def asked_to_stop(first: Callable[[], None]) -> Iterator[list[int]]:
    """Signals only ask while the block runs; their numbers. `first` is called for the first one.

    In a thread that is not the main one, which alone may take signals, nobody asks.

    Raises:
        KeyboardInterrupt: at the second one, out of whatever runs then.
    """
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)
        first()

    taken = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, on_signal) for number in taken}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
