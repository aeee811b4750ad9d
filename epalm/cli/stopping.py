"""Ctrl-C and SIGTERM while work runs that can save first: the first asks for that, the next one stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_EXIT = 128  # what a shell adds to the number of the signal that ended a command


class Asked:
    """Whether somebody asked to stop; called, it says so."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Whether it was asked for."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return _EXIT + (self.signal or signal.SIGINT)


@contextmanager
def asked_to_stop(first: Callable[[], None]) -> Iterator[Asked]:
    """Signals only ask while the block runs; `first` is called for the first one.

    In a thread that is not the main one, which alone may take signals, nobody asks.

    Raises:
        KeyboardInterrupt: at the second one, out of whatever runs then.
    """
    asked = Asked()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if asked.signal is not None:
            raise KeyboardInterrupt
        asked.signal = number
        first()

    taken = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, on_signal) for number in taken}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
