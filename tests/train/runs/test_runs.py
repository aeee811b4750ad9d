"""Runs are named by what decides them: done ones are found, stopped ones go on, changed ones say what changed."""

import fcntl
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epalm.train import loop
from epalm.train.loop import Validation, take_step
from epalm.train.runs import checkpoints
from epalm.train.runs.run_folder import RunFolder, locked
from tests.conftest import Done
from tests.trials import Trial, latest_tensors

STEPS = 6
SHORT = (
    "--recipe", "playground", "--set", f"optim.max_steps={STEPS}", "--set", "optim.batch_size=4",
    "--set", "eval.every_steps=3", "--set", "data.val_split=test", "--set", "checkpoint.every_steps=2",
)  # fmt: skip
RATE = ("--set", "optim.peak_lr=0.001")
RUNS = Path(".epalm/runs")
Train = Callable[..., Done]


@pytest.fixture
def train(trial: Trial) -> Train:
    def run(*words: object) -> Done:
        places = ("-m", "image", "--data", trial.world, "--cache", trial.cache, "--no-canary")
        return trial.epalm("train", "--from-cache", *places, *SHORT, *words)

    return run


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on a training gets a Ctrl-C in its step of that number, counted from where it begins."""

    def arrange(number: int) -> None:
        seen = 0

        def stepped(*words: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGINT)
            return take_step(*words, **options)

        monkeypatch.setattr(loop, "take_step", stepped)

    return arrange


def _ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def _runs() -> list[str]:
    return sorted(path.parent.name for path in RUNS.glob("*/config.toml"))


def test_what_is_done_is_found_wherever_data_and_cache_lie(train: Train, trial: Trial, tmp_path: Path) -> None:
    first = json.loads(_ok(train("--json")).out)
    again = _ok(train("--json"))
    assert json.loads(again.out) == first
    assert "done already" in again.err and "not scored yet" in again.err and "epalm score" in again.err
    _ok(trial.epalm("score", "--limit", 4, "--num-beams", 1, "--cache", trial.cache))
    assert "scored: qa exact match" in train().err
    shutil.move(trial.root, tmp_path / "moved")
    moved = Trial(trial.epalm, trial.modality, tmp_path / "moved")
    places = ("-m", "image", "--data", moved.world, "--cache", moved.cache, "--no-canary")
    faster = ("--set", "checkpoint.every_minutes=1")  # decides nothing
    assert "done already" in _ok(trial.epalm("train", "--from-cache", *places, *SHORT, *faster)).err
    assert len(_runs()) == 1
    once_more = _ok(trial.epalm("train", "--from-cache", *places, *SHORT, "--run", "second"))
    assert "done already" not in once_more.err and "changed" not in once_more.err
    one, other = (latest_tensors(RUNS / name) for name in _runs())
    assert one == other


def test_a_change_is_named_and_begins_another_run(train: Train, trial: Trial) -> None:
    _ok(train())
    assert re.search(r"changed since \S+: optim\.peak_lr \S+ → 0\.001$", train(*RATE).err, re.MULTILINE)
    rows = trial.samples
    place = next(n for n, row in enumerate(rows) if row["split"] == "train" and row["task"] == "qa")
    rows[place]["answers"] = {"something else": 1.0}
    trial.samples = rows
    answered = _ok(train())
    (line,) = [line for line in answered.err.splitlines() if "a new run" in line]
    assert "training.content" in line and ";" not in line.partition(": ")[2]
    trial.samples = [row for row in rows if row is not rows[place]]
    fewer = _ok(train())
    was, now = re.findall(r"training\.count (\d+) → (\d+)", fewer.err)[0]
    assert int(now) == int(was) - 1
    assert "layers" in _ok(train("--layers", "2,3", "--set", "model.tokens=2")).err.partition("a new run")[2]
    assert len(_runs()) == 5


def test_ctrl_c_saves_and_the_same_command_goes_on(train: Train, stop_at: Callable[[int], None]) -> None:
    stop_at(4)
    stopped = train()
    assert stopped.code == 130 and "the same command goes on" in stopped.err
    (name,) = _runs()
    assert (RUNS / name / "checkpoints/latest").read_text() == "step-4\n"
    stop_at(0)
    done = _ok(train("--json"))
    assert f"going on after step 4 of {STEPS}" in done.err
    assert _runs() == [name] and json.loads(done.out)["steps"] == STEPS
    _ok(train("--run", "whole"))
    assert latest_tensors(RUNS / "whole") == latest_tensors(RUNS / name)
    lines = [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == [3, 6]


def test_a_stopped_training_goes_on_after_an_upgrade(
    train: Train, stop_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(4)
    assert train("--run", "mine").code == 130
    stop_at(0)
    with monkeypatch.context() as upgrade:
        upgrade.setattr("epalm.train.runs.run_key.__version__", "99.0")
        done = _ok(train("--run", "mine"))
        assert "going on after step 4" in done.err and "a new run" not in done.err
        assert re.search(r"saved with other versions \(epalm \S+ → 99.0\): the same bits are promised", done.err)
    _ok(train("--run", "whole"))
    assert "versions" not in _ok(train("--run", "whole")).err
    assert latest_tensors(RUNS / "whole") == latest_tensors(RUNS / "mine")


def test_other_training_code_is_another_training(train: Train, stop_at: Callable[[int], None], trial: Trial) -> None:
    stop_at(4)
    assert train("--run", "mine").code == 130
    stop_at(0)
    path = RUNS / "mine/inputs.json"
    inputs_then = json.loads(path.read_text())
    del inputs_then["parts"]["training_code"]  # as 0.1 recorded them
    path.write_text(json.dumps({**inputs_then, "key": "0" * 64}))
    for run in (("--run", "mine"), ()):
        done, changed = train(*run), "of another training: " if run else "changed since mine: "
        assert f"{changed}training_code none → 1\n" in done.err and done.code == bool(run)
    (new,) = {*_runs()} - {"mine"}
    assert trial.epalm("runs", "mine", new, "--json").out.count("training_code") == 1


def test_the_second_ctrl_c_stops_at_once(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped(*_words: Any, **_options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(loop, "take_step", stepped)
    stopped = train()
    assert stopped.code == 130 and "keeps its last checkpoint" in stopped.err and "Traceback" not in stopped.err


def test_a_named_run_is_that_training_or_refused(train: Train, trial: Trial) -> None:
    RUNS.mkdir(parents=True)
    (RUNS / "mine").mkdir()  # as a kill at the very beginning leaves it
    _ok(train("--run", "mine"))
    assert "done already" in _ok(train("--run", "mine")).err
    refused = train("--run", "mine", "--seed", 3)
    assert refused.code == 1 and "optim.seed 0 → 3" in refused.err and "Traceback" not in refused.err
    inputs = RUNS / "mine/inputs.json"
    inputs_then = json.loads(inputs.read_text())
    inputs.write_text(json.dumps({key: value for key, value in inputs_then.items() if key not in ("key", "parts")}))
    assert "is there already" in train("--run", "mine").err


def test_an_export_among_the_runs_is_listed(train: Train, trial: Trial) -> None:
    _ok(train("--run", "old"))
    _ok(trial.epalm("export", "old", RUNS / "exported"))
    shutil.rmtree(RUNS / "old")
    (one,) = json.loads(_ok(trial.epalm("runs", "--json")).out)
    assert (one["state"], one["modality"], one["recipe"]) == ("done", "image", None)
    assert RunFolder.find(RUNS, modality="image").name == "exported"


def test_two_processes_do_not_share_a_run_folder(train: Train) -> None:
    _ok(train("--run", "mine"))
    (RUNS / "mine/summary.json").unlink()
    with locked(RunFolder(RUNS / "mine")):
        refused = train("--run", "mine")
    assert refused.code == 1
    assert "in use by another process" in refused.err and "Traceback" not in refused.err
    descriptor = os.open(RUNS / "mine/.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was let go
    os.close(descriptor)
    _ok(train("--run", "mine"))


def test_a_damaged_checkpoint_is_passed_over(train: Train, stop_at: Callable[[int], None], trial: Trial) -> None:
    _ok(train("--run", "whole"))
    stop_at(5)
    assert train("--run", "stopped").code == 130
    stop_at(0)
    for name, damage in DAMAGES.items():
        shutil.copytree(RUNS / "stopped", RUNS / name)
        folder = RUNS / name / "checkpoints"
        assert sorted(path.name for path in folder.iterdir()) == ["best", "latest", "step-3", "step-4", "step-5"]
        damage(folder / "step-5")
        scored = trial.epalm("score", "--run", name, "--checkpoint", "latest", "--cache", trial.cache)
        assert scored.code == 1 and "step-5" in scored.err and "Traceback" not in scored.err
        done = _ok(train("--run", name))
        assert "warning" in done.err and "step-5" in done.err and "going on after step 4" in done.err
        assert latest_tensors(RUNS / name) == latest_tensors(RUNS / "whole"), name


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "torn": lambda step: _change(step / "optimiser.safetensors", lambda data: data[:-8]),
    "changed": lambda step: _change(step / "trainable.safetensors", lambda data: data[:-1] + b"?"),
    "gone": lambda step: (step / "optimiser.safetensors").unlink(),
    "state": lambda step: _change(step / "state.json", lambda data: data.replace(b'"step": 5', b'"step": 4')),
    "folder": shutil.rmtree,
}


def test_without_a_whole_checkpoint_it_says_what_to_do(train: Train, stop_at: Callable[[int], None]) -> None:
    stop_at(2)
    assert train("--run", "mine").code == 130
    stop_at(0)
    for path in RUNS.glob("mine/checkpoints/*/state.json"):
        path.write_text("{}")
    refused = train("--run", "mine")
    assert refused.code == 1 and "no checkpoint" in refused.err and "begin again" in refused.err
    assert refused.err.count("error: ") == 1


def test_a_full_disk_costs_nothing_that_was_saved(
    train: Train, stop_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = checkpoints.write_tensors, [0]

    def full(*words: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] == 4:  # in the second checkpoint, behind its trained tensors
            raise OSError(28, "No space left on device")
        write(*words, **options)

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    failed = train("--run", "mine")
    assert failed.code == 1 and failed.err.count("error: ") == 1
    assert "No space left" in failed.err and "same command again" in failed.err
    assert sorted(path.name for path in (RUNS / "mine/checkpoints").iterdir()) == ["latest", "step-2"]
    assert "going on after step 2" in _ok(train("--run", "mine")).err
    _ok(train("--run", "whole"))
    assert latest_tensors(RUNS / "mine") == latest_tensors(RUNS / "whole")


def test_two_checkpoints_and_the_best_are_kept(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(loop, "validate", lambda *_, **__: Validation(next(losses), 0.0, 1))
    _ok(train("--run", "mine", "--set", "optim.max_steps=9"))
    folder = RUNS / "mine/checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best", "latest", "step-3", "step-8", "step-9"]
    assert [(folder / kind).read_text() for kind in ("best", "latest")] == ["step-3\n", "step-9\n"]
    assert RunFolder(RUNS / "mine").load("best")[1] == 3
    assert RunFolder(RUNS / "mine").load("latest")[1] == 9


def test_a_training_with_the_encoder_in_the_loop_is_found_too(trial: Trial) -> None:
    encoder = ("--set", f"encoder.weights='{trial.weights}'", "--set", "model.tokens=3")
    words = ("train", "-m", "image", "--data", trial.world, "--cache", trial.cache, *SHORT, *encoder)
    _ok(trial.epalm(*words))
    assert "done already" in _ok(trial.epalm(*words)).err
    medium = trial.media[0]
    medium.write_bytes(medium.read_bytes() + b"\0")
    changed = _ok(trial.epalm(*words))
    assert "training.media" in changed.err.partition("a new run")[2]
