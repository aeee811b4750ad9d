"""`epalm ablate variants`: a table of every variant from one cache, that goes on where it was stopped."""

import json
from pathlib import Path
from typing import Any

import pytest

from epalm.cli import grid
from epalm.cli.marked import replace_marked, require_marks
from epalm.cli.side_by_side import Command
from epalm.errors import UsageError
from epalm.samples import Modality
from epalm.settings import FORMS
from tests.conftest import Epalm

SHORT = ("--set", "optim.max_steps=100", "--set", "decode.num_beams=1", "-m", "image")
ABOVE_BLIND = 0.1  # exact match after so few steps
FIGURES = {"epalm": (0.9, 8.0), "blind": (0.3, 1.0)}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is run in place of running it; every training leaves what a training leaves."""
    ran: list[tuple[str, ...]] = []

    def run(_title: str, chains: list[list[Command]], **_: object) -> None:
        for command in (command for chain in chains for command in chain):
            ran.append(command.words)
            options = dict(zip(command.words[1:], command.words[2:], strict=False))
            if command.out:
                command.out.parent.mkdir(parents=True, exist_ok=True)
                summary = {"trainable_parameters": 12, "all_parameters": 1200, "seconds": 7.0}
                command.out.write_text(json.dumps(summary))
            if command.words[0] == "score":
                folder = Path(options["--runs"]) / options["--run"]
                folder.mkdir(parents=True)
                exact, cider = FIGURES["blind" if "blind" in folder.name else "epalm"]
                tasks = {
                    "qa": {"metrics": {"exact match": exact}, "chance": {"exact match": 0.2}},
                    "caption": {"metrics": {"CIDEr": cider}, "chance": {"CIDEr": 0.5}},
                }
                (folder / "scores.json").write_text(json.dumps({"tasks": tasks}))

    monkeypatch.setattr(grid, "run_chains", run)
    return ran


def test_the_table_has_every_variant_with_blind_and_chance(
    commands: list[tuple[str, ...]], epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- variants -->\nold\n<!-- /variants -->\nafter\n")
    done = epalm("ablate", "variants", "--write", page, "--json")
    assert done.code == 0, done.err
    rows = {row["variant"]: row for row in json.loads(done.out)}
    assert list(rows) == [*FORMS, "blind", "chance"]
    assert rows["epalm-lin"]["figures"] == {"qa": [0.9] * 3, "caption": [8.0] * 3}
    assert rows["blind"]["figures"]["qa"] == [0.3] * 3 and rows["chance"]["figures"]["qa"] == [0.2] * 3
    assert rows["epalm"]["share"] == 0.01
    trained = [words for words in commands if words[0] == "train"]
    assert len(trained) == len(Modality) * 5  # epalm-pt-l is epalm-pt there
    text = page.read_text()
    assert text.startswith("before\n<!-- variants -->\n") and text.endswith("<!-- /variants -->\nafter\n")
    assert "| `epalm-lin` | 12 | 1.00% | 7 s | 90.0 | 800.0 | 90.0 | 800.0 | 90.0 | 800.0 |" in text
    assert "| blind | 12 |" in text and "| chance |  |  |  | 20.0 | 50.0 |" in text and "old" not in text

    commands.clear()
    again = epalm("ablate", "variants", "--json")
    assert again.out == done.out
    assert {words[0] for words in commands} == {"extract", "train"}  # which say that all is done; nothing is decoded


def test_changed_settings_are_runs_of_their_own(
    commands: list[tuple[str, ...]], epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for settings in ((), ("--set", "optim.max_steps=3"), ("--set", "model.prompt=none")):
        done = epalm("ablate", "variants", "-m", "audio", *settings)
        assert done.code == 0 and "audio QA" in done.out and "image" not in done.out
    folders = {words[words.index("--runs") + 1] for words in commands if words[0] == "train"}
    assert len(folders) == 3
    chosen = [words for words in commands if words[0] == "train" and "model.prompt=none" in words]
    assert [words[words.index("--run") + 1] for words in chosen] == [
        "audio-epalm-lin",  # without a prompt epalm-pt is epalm-lin
        "audio-epalm",
        "audio-epalm-ada",
        "audio-blind",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "<!-- variants -->", "<!-- /variants --><!-- variants -->", 2 * "<!-- variants --><!-- /variants -->", None],
)
def test_a_page_without_its_two_marks_is_refused_before_anything_runs(
    text: str | None, commands: list[tuple[str, ...]], epalm: Epalm, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    done = epalm("ablate", "variants", "--write", page, "--runs", tmp_path)
    assert done.code == 1 and str(page) in done.err and "Traceback" not in done.err
    assert not commands


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a <!-- x --> b <!-- /x --> c <!-- y --> d <!-- /y -->")
    replace_marked(page, "x", "new")
    replace_marked(page, "x", "newer")
    assert page.read_text() == "a <!-- x -->\n\nnewer\n\n<!-- /x --> c <!-- y --> d <!-- /y -->"
    with pytest.raises(UsageError, match="<!-- z -->"):
        require_marks(page, "z")


@pytest.mark.slow
def test_every_variant_sees_more_than_the_blind_one(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained for a quarter of the steps, from one cache; the commands run in this process, which has started."""

    def run(_title: str, chains: list[list[Command]], **_: object) -> None:
        for command in (command for chain in chains for command in chain):
            ended = epalm(*command.words)
            assert ended.code == 0, ended.err
            if command.out:
                command.out.parent.mkdir(parents=True, exist_ok=True)
                command.out.write_text(ended.out)

    monkeypatch.setattr(grid, "run_chains", run)
    monkeypatch.chdir(tmp_path)
    done = epalm("ablate", "variants", *SHORT, "--json")
    assert done.code == 0, done.err
    rows: dict[str, dict[str, Any]] = {row["variant"]: row for row in json.loads(done.out)}
    (qa,), (cider,) = rows["blind"]["figures"]["qa"], rows["blind"]["figures"]["caption"]
    for name in FORMS:
        assert rows[name]["figures"]["qa"][0] > qa + ABOVE_BLIND, name
        assert rows[name]["figures"]["caption"][0] > 2 * cider, name
        assert 0 < rows[name]["share"] < 0.1
