"""Time several ways of doing the same work, in turns, so that a noisy machine is equally noisy to all; memory."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds of each round for one way of doing the work; where they were measured, those of this process's cores."""

    name: str
    seconds: tuple[float, ...]
    cpu: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    def times(self, factor: float) -> "Timing":
        """Of so many times the work."""
        return Timing(self.name, *(tuple(factor * one for one in part) for part in (self.seconds, self.cpu)))


def in_turns(ways: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Run every way once unmeasured, then `rounds` times in turns, the order reversed every other round."""
    for run in ways.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            started, computed = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - computed)
    return {name: Timing(name, tuple(seconds[name]), tuple(cpu[name])) for name in ways}


def ratio(slower: Timing, faster: Timing) -> tuple[float, float, float]:
    """(median, lowest, highest) of the rounds' ratios `slower / faster`: neighbours in time are compared."""
    ratios = [a / b for a, b in zip(slower.seconds, faster.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def peak_mib() -> float:
    """Most memory that this process held. What getrusage says includes the process that started this one."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
