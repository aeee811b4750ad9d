"""What a training reports goes to its folder and a tracker; only the folder may end it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from epalm.errors import EpalmError, UsageError
from epalm.train.material import resolve
from epalm.train.request import TrainRequest
from epalm.train.runs import tracking
from epalm.train.runs.run_folder import RunFolder
from epalm.train.runs.tracking import TrackerName, plain, reporting
from tests.trials import Trial

SETTINGS = {"optim": {"peak_lr": 0.5, "epochs": 3}, "data": {"tasks": ["qa"], "few_shot": None}, "description": "x"}
LINES: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0, "loss": 3.0, "lr": 0.1},
    {"step": 20, "epoch": 0, "loss": 2.0, "lr": 0.2},
    {"step": 20, "val_loss": 2.5, "val_exact": 0.25, "n": 4},
    {"step": 30, "epoch": 1, "loss": 1.0, "lr": 0.1},
]


class Recorded:
    """A tracker as accelerate's are, which keeps what it is told."""

    main_process_only = True

    def __init__(self) -> None:
        self.settings: list[Mapping[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.broken = False

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.settings.append(values)

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken:
            raise ConnectionError("the server is gone")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Stands for every tracker, and gives its run the id "abc"."""
    one = Recorded()
    monkeypatch.setattr(tracking, "_start", lambda _name, _folder, known: (one, known or "abc", "here"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    return one


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "x", name="mine")


def test_settings_are_flat_and_of_plain_types() -> None:
    assert plain(SETTINGS) == {"optim.peak_lr": 0.5, "optim.epochs": 3, "data.tasks": '["qa"]', "description": "x"}


@pytest.mark.parametrize("name", TrackerName)
def test_an_absent_package_is_one_message(name: TrackerName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=f"--track {name} needs {name}, which is not") as caught:
        resolve(TrainRequest(track=[name]), pytest.fail)
    assert caught.value.hint == f"pip install 'epalm[{name}]'"


@pytest.mark.parametrize("killed_after", range(len(LINES) + 1))
def test_a_resumed_run_goes_on_in_the_tracker_and_repeats_nothing(
    killed_after: int, recorded: Recorded, run: RunFolder
) -> None:
    killed = tracking.tracking("wandb", run.path, SETTINGS)
    send = killed.__enter__()
    for line in LINES[:killed_after]:
        send(line)
    with tracking.tracking("wandb", run.path, SETTINGS) as send:  # from a checkpoint before all that
        for line in LINES:
            send(line)
    sent = [(step, sorted(values)) for step, values in recorded.logged]
    assert sent == [(line["step"], sorted(set(line) - {"step"})) for line in LINES]
    assert recorded.settings == [plain(SETTINGS)] and recorded.finished == 1
    assert json.loads((run.path / "tracking/wandb.json").read_text())["id"] == "abc"


def test_a_tracker_that_fails_is_dropped_and_the_training_goes_on(
    recorded: Recorded, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporting(run, SETTINGS, ["mlflow"]) as report:
        report(LINES[0])
        recorded.broken = True
        for line in LINES[1:]:
            report(line)
    with run.metrics.open("a") as file:
        file.write('{"step": 40, "lo')  # as a kill leaves it
    assert run.read_metrics() == LINES
    assert [step for step, _ in recorded.logged] == [10]
    assert capsys.readouterr().err.count("the server is gone") == 1


def test_a_tracker_that_does_not_start_is_one_message(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tracking, "_start", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    does_not_start = pytest.raises(EpalmError, match="--track wandb does not start: no route to host")
    with does_not_start as caught, reporting(run, SETTINGS, ["wandb"]):
        pass
    assert caught.value.hint is not None and "WANDB_MODE=offline" in caught.value.hint


def test_tensorboard_has_every_number_once(run: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    for part in (LINES[:3], LINES):
        with reporting(run, SETTINGS, ["tensorboard"]) as report:
            for line in part:
                report(line)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for key in ("loss", "lr", "val_loss", "val_exact"):
        wanted = [(line["step"], pytest.approx(line[key])) for line in LINES if key in line]
        assert [(event.step, event.value) for event in events.Scalars(key)] == wanted
    (settings,) = run.path.glob("tensorboard/*/hparams.yml")
    assert "optim.peak_lr: 0.5" in settings.read_text()


def test_training_tells_its_tracker(trial: Trial) -> None:
    pytest.importorskip("tensorboard")
    recipe = ("--recipe", "playground", "--set", "optim.max_steps=3", "--set", "eval.every_steps=2", "--run", "mine")
    val = ("--set", "data.val_split=test", "--device", "cpu")
    done = trial.epalm("train", "--from-cache", "--cache", trial.cache, *recipe, *val, "--track", "tensorboard")
    assert done.code == 0, done.err
    assert "tensorboard --logdir .epalm/runs" in done.err
    run = Path(".epalm/runs/mine")
    assert len([*run.glob("tensorboard/events.*")]) == 1
    assert not (run / "curves.svg").exists()
