"""A run handed on: a small folder that Python and the commands take, with nothing of the machine in it."""

import json
import shutil
from pathlib import Path

import pytest

import epalm as package
from epalm.errors import MediaError, UsageError
from epalm.samples import Modality
from epalm.train.runs import exchange
from epalm.train.runs.listing import headlines
from epalm.train.runs.run_folder import RunFolder
from tests.conftest import Epalm

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=3", "--set", "optim.batch_size=8")


@pytest.fixture
def exported(epalm: Epalm, worlds: dict[Modality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert epalm("extract", "-m", "image", "--data", worlds[Modality.IMAGE], "--weights", "playground").code == 0
    for words in (
        ("train", "--from-cache", "--run", "mine", "--variant", "epalm-ada", *SHORT),
        ("score", "--limit", 3, "--metrics", "exact match"),
        ("export", "mine", tmp_path / "out"),
    ):
        done = epalm(*words)
        assert done.code == 0, done.err
    return tmp_path / "out"


def test_three_lines_of_python_say_what_the_run_says(
    exported: Path, epalm: Epalm, worlds: dict[Modality, Path], tmp_path: Path
) -> None:
    medium = next((worlds[Modality.IMAGE] / "test").iterdir())
    expected = epalm("predict", medium, "what color is it?", "--run", "mine").out.strip()
    shutil.rmtree(tmp_path / ".epalm")  # neither the run nor the cache is needed
    model = package.load(exported)
    assert model.answer(medium, "what color is it?") == expected
    assert isinstance(model.caption(str(medium)), str)
    with pytest.raises(MediaError, match=r"nothing\.png"):
        model.caption("nothing.png")
    assert epalm("predict", medium, "what color is it?", "--run", exported).out.strip() == expected
    scored = epalm("score", "--run", exported, "--data", worlds[Modality.IMAGE], "--limit", 2, "--json")
    assert scored.code == 0, scored.err


def test_it_is_small_and_tells_nothing_of_the_machine(exported: Path, tmp_path: Path) -> None:
    files = {path.name: path for path in exported.iterdir()}
    assert set(files) == {"README.md", "config.toml", "inputs.json", "trainable.safetensors"}
    assert sum(path.stat().st_size for path in files.values()) < 1e6  # bytes
    card = files["README.md"].read_text()
    assert card.startswith("---\nlibrary_name: epalm\n") and "epalm-ada" in card and "exact match" in card
    row = next(line for line in card.splitlines() if "exact match" in line)
    world = json.loads((tmp_path / ".epalm/runs/mine/scores.json").read_text())
    of = world["tasks"]["qa"]["figures"]["exact match"]["of"]
    assert of > 3 and f"no interval: 1 medium), 3/{of}, limited, split test of image |" in row
    texts = card + files["config.toml"].read_text() + files["inputs.json"].read_text()
    assert str(tmp_path) not in texts
    assert json.loads(files["inputs.json"].read_text())["features"]["source"] == "live"


def test_scores_of_a_checkpoint_left_behind_are_not_shown(exported: Path, epalm: Epalm, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / ".epalm/runs/mine")
    assert list(headlines(run)) == ["qa exact match"]
    scores = json.loads((run.path / "scores.json").read_text())
    (run.path / "scores.json").write_text(json.dumps(scores | {"checkpoint_step": 2}))
    assert headlines(run) == {}
    assert epalm("export", "mine", tmp_path / "new").code == 0
    assert "exact match" in (exported / "README.md").read_text()
    assert "exact match" not in (tmp_path / "new/README.md").read_text()


def test_nothing_is_left_of_an_export_that_failed(
    exported: Path, epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(exchange, "write_atomically", full)
        failed = epalm("export", "mine", tmp_path / "new")
    assert failed.code == 1 and "no space" in failed.err and "Traceback" not in failed.err
    assert not (tmp_path / "new").exists()
    (tmp_path / ".epalm/runs/mine/scores.json").write_text('{"tasks')
    failed = epalm("export", "mine", tmp_path / "new")
    assert failed.code == 1 and "scores.json cannot be read" in failed.err and "Traceback" not in failed.err
    assert not (tmp_path / "new").exists()


def test_wrong_places_are_one_message(exported: Path, epalm: Epalm, tmp_path: Path) -> None:
    for words, expected in (
        (("export", "mine", exported), "is there already"),
        (("export", "nothing", tmp_path / "new"), "nothing"),
        (("export", "mine", tmp_path / "new", "--checkpoint", "first"), "best or latest"),
        (("score", "--run", exported), "--data"),
    ):
        done = epalm(*words)
        assert done.code == 1 and expected in done.err and "Traceback" not in done.err
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="no run folder"):
        package.load(tmp_path)
