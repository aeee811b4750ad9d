"""`epalm runs`: every run below a folder in its state, the damaged ones too; one closely, two compared."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import epalm
from epalm.train.runs.run_folder import RunFolder, locked
from tests.trials import Trial

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=2", "--set", "optim.batch_size=4", "--no-canary")


@pytest.fixture
def runs(trial: Trial, tmp_path: Path) -> Path:
    """Runs in all states; all but the first one made from it, which costs nothing."""
    folder = tmp_path / "runs"
    places = ("-m", "image", "--data", trial.world, "--cache", trial.cache, "--runs", folder)
    words = ("train", "--from-cache", *places, *SHORT, "--set", "data.val_split=test", "--run")
    done = trial.epalm(*words, "done")
    assert done.code == 0, done.err
    assert trial.epalm(*words, "other", "--seed", 5).code == 0
    scored = trial.epalm(
        "score", "--run", "done", "--runs", folder, "--limit", 3, "--num-beams", 1, "--cache", trial.cache
    )
    assert scored.code == 0, scored.err
    for name in ("stopped", "begun", "torn", "damaged", "empty", "nested/deep"):
        shutil.copytree(folder / "other", folder / name)
        (folder / name / "summary.json").unlink()
    shutil.rmtree(folder / "begun/checkpoints")
    with (folder / "stopped/metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "val_lo')  # as a kill leaves it
    (folder / "torn/inputs.json").write_text("{")
    (folder / "damaged/checkpoints/latest").write_text("step-99\n")
    for path in ("config.toml", "inputs.json"):
        (folder / "empty" / path).write_text("")
    return folder


def test_every_state_is_listed(runs: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epalm.console._PIPE_WIDTH", 400)  # for the long folders of tests
    with locked(RunFolder(runs / "nested/deep")):
        done = trial.epalm("runs", "--runs", runs, "--json")
    assert done.code == 0, done.err
    records = {one["name"]: one for one in json.loads(done.out)}
    assert {name: one["state"] for name, one in records.items()} == {
        "done": "done", "other": "done", "stopped": "stopped", "begun": "stopped", "torn": "damaged",
        "damaged": "damaged", "empty": "damaged", "nested/deep": "running",
    }  # fmt: skip
    one = records["done"]
    assert (one["modality"], one["recipe"], one["variant"]) == ("image", "playground", "epalm")
    assert (one["step"], one["steps"]) == (2, 2) and one["val_loss"] > 0 and "qa exact match" in one["scores"]
    figure = one["scores"]["qa exact match"]
    assert figure["scored"] == figure["expected"] <= 3 < figure["of"]
    assert (figure["split"], figure["data"]) == ("test", str(trial.world))
    assert 0 < one["val_samples"] <= one["val_of"]
    assert records["begun"]["step"] is None and "step-99" in records["damaged"]["fault"]
    shown = trial.epalm("runs", "--runs", runs)
    assert shown.code == 0 and "Traceback" not in shown.err
    for text in ("stopped at step 2", "stopped at step 0", "nats", "2/2", "nested/deep", "limited"):
        assert text in shown.out
    assert "torn: " in shown.err and "inputs.json cannot be read" in shown.err


def test_runs_are_a_frame_with_scores_and_what_differs(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = epalm.runs(runs).set_index("name")
    assert frame.loc["done", "optim.seed"] == 0 and frame.loc["other", "optim.seed"] == 5
    assert [name for name in frame.columns if name.startswith("optim.")] == ["optim.seed"]
    figure: Any = frame["scores"]["done"]
    assert (
        frame.loc["done", "qa exact match"] == figure["qa exact match"]["value"]
        and frame["qa exact match"].notna().sum() == 1
    )
    assert frame.loc["torn", "state"] == "damaged" and frame["step"].dtype == "Int64"
    assert epalm.runs(runs / "none").empty
    monkeypatch.setenv("EPALM_RUNS", str(runs))
    assert len(epalm.runs()) == len(frame)
    page = (Path(__file__).parents[3] / "docs/training.md").read_text()
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    assert "'damaged': 3, 'done': 2" in capsys.readouterr().out


def test_what_ended_last_is_the_latest_and_files_that_are_not_epalms_stay(runs: Path) -> None:
    run = RunFolder(runs / "done")
    assert RunFolder.find(runs).name == "other"
    run.make_latest()
    assert RunFolder.find(runs).name == "done"
    for name in (".notes.txt", ".inputs.json.bak", ".config.toml.0123abcd"):
        (run.path / name).touch()
    run.go_on_from(2)
    left = {path.name for path in run.path.iterdir()}
    assert {".notes.txt", ".inputs.json.bak"} <= left and ".config.toml.0123abcd" not in left


def test_one_is_looked_at_and_two_are_compared(runs: Path, trial: Trial) -> None:
    words = ("runs", "--runs", runs)
    shown = trial.epalm(*words, "done")
    assert shown.code == 0 and "language model" in shown.out and str(trial.world) in shown.out.replace("\n", "")
    record = json.loads(trial.epalm(*words, "done", "--json").out)
    assert record["state"] == "done" and record["checkpoints"] == {"best": "step-2", "latest": "step-2"}
    compared = json.loads(trial.epalm(*words, "done", "other", "--json").out)
    assert compared["differences"] == ["optim.seed 0 → 5"]
    assert "optim.seed 0 → 5" in trial.epalm(*words, "done", "other").out
    table = trial.epalm(*words, "done", "--format", "csv").out
    assert table.startswith("name,value\n") and "state,done\n" in table
    assert trial.epalm(*words, "done", "other", "--format", "csv").out.splitlines()[1:] == ["optim.seed 0 → 5"]
    assert "the same training" in trial.epalm(*words, "other", "stopped").err
    for names, fault in ((("nothing",), "nothing"), (("a", "b", "c"), "3 runs"), (("done", "torn"), "cannot be read")):
        refused = trial.epalm(*words, *names)
        assert refused.code == 1 and fault in refused.err and "Traceback" not in refused.err


def test_a_folder_without_runs_says_so(trial: Trial, tmp_path: Path) -> None:
    done = trial.epalm("runs", "--runs", tmp_path / "none")
    assert done.code == 0 and "epalm train" in done.err
    assert trial.epalm("runs", "--runs", tmp_path / "none", "--json").out == "[]\n"
