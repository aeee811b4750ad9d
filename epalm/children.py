"""Processes that this one starts to work for it: what they find, and that they end with it.

Imports next to nothing, so that such a process starts fast.
"""

import os
import signal
import sys

_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG


def python_command(module: str, descriptor: int) -> list[str]:
    """The command line of a Python that finds what this process finds, and calls `main(descriptor)` of that module."""
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]  # noqa: PTH109
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path[:] = {path!a}; from {module} import main; main({descriptor})",
    ]


def end_with_parent() -> None:
    """Have the kernel end this process with the thread that started it, also in the middle of its work.

    Elsewhere than on Linux it ends when it next reads from its pipe or writes to it.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SIGNAL_OF_PARENTS_DEATH, int(signal.SIGKILL), 0, 0, 0)
