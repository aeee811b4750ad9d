"""Where the metrics of a training go: its run folder, and TensorBoard, Weights & Biases or MLflow through accelerate.

A run goes on in the tracker where it went on: `tracking/NAME.json` in the run folder holds the tracker's own id of the
run and the last step that was sent of each metric, and nothing is sent twice. A tracker that fails later on is dropped
with a warning; only one that cannot start, or a run folder that cannot be written, stops a training.
"""

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
from epalm.errors import EpalmError

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

    from epalm.train.runs.run_folder import RunFolder

Report = Callable[[Mapping[str, Any]], None]
_PROJECT = "epalm"  # what Weights & Biases calls a project, MLflow an experiment
_WITHOUT_SERVER = {"wandb": "WANDB_MODE=offline keeps it on disk", "mlflow": "MLFLOW_TRACKING_URI says where to"}


class TrackerName(StrEnum):
    """The trackers; each is the package that it needs, and our extra for it."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


@contextmanager
def reporting(run: "RunFolder", settings: Mapping[str, Any], trackers: Sequence[str] = ()) -> Iterator[Report]:
    """What one process of a training reports lines of metrics with; `settings` are the resolved recipe's.

    Raises EpalmError: a tracker does not start; from the call, the run folder cannot be written.
    """
    with ExitStack() as held:
        sending = [held.enter_context(tracking(name, run.path, settings)) for name in dict.fromkeys(trackers)]

        def report(metrics: Mapping[str, Any]) -> None:
            run.report(metrics)
            for send in sending:
                send(metrics)

        yield report


@contextmanager
def tracking(name: str, folder: Path, settings: Mapping[str, Any]) -> Iterator[Report]:
    """What a tracker is sent lines of metrics with, each with its "step": what was sent before is left out.

    `folder` is the run's. Raises EpalmError: the tracker does not start.
    """
    path = folder / "tracking" / f"{name}.json"
    sent: dict[str, int] = {}  # metric → the last step that was sent
    tracker: GeneralTracker | None

    def note() -> None:
        write_atomically(path, json.dumps({"id": own, "sent": sent}).encode())

    try:
        noted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.parent.mkdir(exist_ok=True)
        tracker, own, place = _start(name, folder, noted.get("id"))
        if not noted:
            tracker.store_init_configuration(plain(settings))
        sent |= noted.get("sent", {})
        note()
    except Exception as error:  # whatever a tracker's client raises without its server, its login, its disk
        hint = f"{_WITHOUT_SERVER.get(name, 'free space')}, or leave --track {name} out: metrics.jsonl has everything"
        raise EpalmError(f"--track {name} does not start: {error}", hint=hint) from error
    say(f"tracking: {name}, {place}")
    earlier = dict(sent)

    def send(metrics: Mapping[str, Any]) -> None:
        nonlocal tracker
        step = int(metrics["step"])
        new = {key: value for key, value in metrics.items() if key != "step" and step > earlier.get(key, 0)}
        if new and tracker is not None:
            sent.update(dict.fromkeys(new, step))
            try:
                note()  # first: after a kill between the two a point is missing, and none is there twice
                tracker.log(new, step=step)
            except Exception as error:  # a training of days does not end because a server does
                warn(f"--track {name} stopped at step {step}, and the training goes on: {error}")
                tracker = None

    try:
        yield send
    finally:
        try:
            if tracker is not None:
                tracker.finish()
        except Exception as error:
            warn(f"--track {name} did not end well: {error}")


def plain(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Settings as "section.key", in the types that trackers take; what is None is left out."""
    from epalm.recipes.config import flat

    values = {key: value for key, value in flat(settings).items() if value is not None}
    return {key: one if isinstance(one, bool | int | float | str) else json.dumps(one) for key, one in values.items()}


def _start(name: str, folder: Path, known: str | None) -> "tuple[GeneralTracker, str | None, str]":
    """A tracker that has started, its id of the run, and where a user finds what is tracked."""
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
    if name == "tensorboard":
        return tracker, known, f"tensorboard --logdir {folder.parent}"
    if name == "wandb":
        sent_later = f"offline; wandb sync {folder}/wandb/offline-run-* sends it"
        return tracker, known, sent_later if tracker.tracker.offline else str(tracker.tracker.url)
    import mlflow

    place = f"experiment {_PROJECT} of {mlflow.get_tracking_uri()}"
    return tracker, str(tracker.tracker.info.run_id), place
