"""Where the metrics of a training go: its run folder, and TensorBoard, Weights & Biases or MLflow through accelerate.

A run goes on in the tracker where it went on: `tracking/NAME.json` in the run folder holds the tracker's own id of the
run and the last step that was sent of each metric, and nothing is sent twice. A tracker that fails later on is dropped
with a warning; only one that cannot start, or a run folder that cannot be written, stops a training.
"""

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.objects.durable import write_atomically
from epalm.console import say, warn
from epalm.errors import EpalmError, UsageError

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

    from epalm.train.runs.run_folder import RunFolder

_PROJECT = "epalm"  # what Weights & Biases calls a project, MLflow an experiment
_WITHOUT_SERVER = {"wandb": "WANDB_MODE=offline keeps it on disk", "mlflow": "MLFLOW_TRACKING_URI says where to"}


class TrackerName(StrEnum):
    """The trackers; each is the package that it needs, and our extra for it."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


@contextmanager
def reporting(
    run: "RunFolder", settings: Mapping[str, Any], trackers: Sequence[str] = ()
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What one process of a training reports lines of metrics with; `settings` are the resolved recipe's.

    Raises:
        UsageError: the package of a tracker is not installed.
        EpalmError: a tracker does not start; from the call, the run folder cannot be written.
    """
    with ExitStack() as last:
        started = []
        for name in trackers:
            started.append(Tracker(name, run.path, settings))
            last.callback(started[-1].finish)

        def report(metrics: Mapping[str, Any]) -> None:
            run.report(metrics)
            for tracker in started:
                tracker.report(metrics)

        yield report


class Tracker:
    """One tracker of one run."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """`folder` is the run's, `settings` the resolved recipe's as nested JSON values.

        Raises:
            UsageError: the tracker's package is not installed.
            EpalmError: it does not start.
        """
        require_trackers([name])
        self.name, self._path = name, folder / "tracking" / f"{name}.json"
        noted = _read(self._path)
        self._sent: dict[str, int] = dict(noted.get("sent", {}))
        self._earlier = dict(self._sent)
        try:
            self._path.parent.mkdir(exist_ok=True)
            self._tracker, self._id = _start(name, folder, noted.get("id"))
            if not noted:
                self._tracker.store_init_configuration(flat(settings))
            self._note()
        except Exception as error:  # whatever a tracker's client raises without its server, its login, its disk
            raise EpalmError(
                f"--track {name} does not start: {error}",
                hint=f"{_WITHOUT_SERVER.get(name, 'free space')}, or leave --track {name} out: metrics.jsonl has "
                "everything",
            ) from error
        say(f"tracking: {name}, {_address(name, self._tracker, folder)}")

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Send the numbers of one line of metrics that were not sent before; `metrics` has the "step"."""
        step = int(metrics["step"])
        new = {key: value for key, value in metrics.items() if key != "step" and step > self._earlier.get(key, 0)}
        if new and self._tracker is not None:
            self._sent |= dict.fromkeys(new, step)
            try:
                self._note()  # first: after a kill between the two a point is missing, and none is there twice
                self._tracker.log(new, step=step)
            except Exception as error:  # a training of days does not end because a server does
                warn(f"--track {self.name} stopped at step {step}, and the training goes on: {error}")
                self._tracker = None

    def finish(self) -> None:
        """Close the tracker."""
        if self._tracker is not None:
            try:
                self._tracker.finish()
            except Exception as error:
                warn(f"--track {self.name} did not end well: {error}")

    def _note(self) -> None:
        write_atomically(self._path, json.dumps({"id": self._id, "sent": self._sent}).encode())


def require_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once. Raises UsageError when the package of one is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"--track {name} needs the package {name}, which is not installed", hint=f"pip install 'epalm[{name}]'"
            )
    return tuple(dict.fromkeys(names))


def flat(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Nested settings as "section.key", in the types that trackers take; what is None is left out."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": one for inner, one in flat(value).items()}
        elif value is not None:
            found[key] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found


def _start(name: str, folder: Path, known: str | None) -> "tuple[GeneralTracker, str | None]":
    """A tracker that has started, and its id of the run."""
    from accelerate import PartialState
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

    PartialState()  # accelerate's own log wants it
    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = TensorBoardTracker(name, folder)
    elif name == "wandb":
        import wandb

        known = known or uuid.uuid4().hex[:8]
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
        where = {"dir": str(folder), "mode": mode, "settings": wandb.Settings(silent=True, console="off")}
        tracker = WandBTracker(_PROJECT, name=folder.name, id=known, resume="allow", **where)
    else:
        tracker = MLflowTracker(_PROJECT, run_id=known, run_name=folder.name)
    tracker.main_process_only = False  # it is the caller that reports from one process alone
    tracker.start()
    return tracker, str(tracker.tracker.info.run_id) if name == "mlflow" else known


def _address(name: str, tracker: "GeneralTracker", folder: Path) -> str:
    """Where a user finds what is tracked."""
    if name == "tensorboard":
        return f"tensorboard --logdir {folder.parent}"
    if name == "wandb":
        sent_later = f"offline; wandb sync {folder}/wandb/offline-run-* sends it"
        return sent_later if tracker.tracker.offline else str(tracker.tracker.url)
    import mlflow

    return f"experiment {_PROJECT} of {mlflow.get_tracking_uri()}"


def _read(path: Path) -> dict[str, Any]:
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}
