"""Where the metrics of a training go: its run folder, its trackers, a picture of its curves.

Only a run folder that cannot be written, or a tracker that does not start, ends a training.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from epalm.console import warn
from epalm.train.loop import Report
from epalm.train.runs.curves import draw_curves
from epalm.train.runs.run_folder import RunFolder
from epalm.train.runs.tracking import Tracker

_CURVES = "curves.svg"
_SHARE = 0.02  # of the time that may go into pictures before the last


@contextmanager
def reporting(run: RunFolder, settings: Mapping[str, Any], trackers: Sequence[str] = ()) -> Iterator[Report]:
    """What the loop reports with; for one process of a training. `settings` are the resolved recipe's, for trackers.

    Raises:
        UsageError: the package of a tracker is not installed.
        EpalmError: a tracker does not start; from `Report`, the run folder cannot be written.
    """
    picture = _Picture(run)
    with ExitStack() as last:
        last.callback(picture.draw)
        started = []
        for name in trackers:
            started.append(Tracker(name, run.path, settings))
            last.callback(started[-1].finish)

        def report(metrics: Mapping[str, Any]) -> None:
            run.report(metrics)
            for tracker in started:
                tracker.report(metrics)
            if "val_loss" in metrics:
                picture.draw_in_time()

        yield report


class _Picture:
    """The curves of a run; that they cannot be drawn is told once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._told = False
        self._drawn, self._cost = time.monotonic(), 1.0  # seconds, a guess until it was drawn once

    def draw_in_time(self) -> None:
        if time.monotonic() - self._drawn > self._cost / _SHARE:
            self.draw()

    def draw(self) -> None:
        started = time.monotonic()
        try:
            draw_curves(self._run.metrics, self._run.path / _CURVES, self._run.name)
        except Exception as error:  # no picture is worth a training
            if not self._told:
                warn(f"{_CURVES} could not be drawn, and the training goes on: {error}")
            self._told = True
        self._drawn = time.monotonic()
        self._cost = self._drawn - started
