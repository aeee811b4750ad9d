"""`epalm ablate`: the variants and the paper's tables from one cache, which go on where they were stopped."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from epalm.cli import grid
from epalm.cli.ablation import PLAYGROUND_STEPS
from epalm.cli.marked import replace_marked, require_marks
from epalm.cli.paper_tables import PAPER_BANK, TABLES, Sizes, late_blocks, levels, masks
from epalm.cli.side_by_side import Command, run_chains
from epalm.errors import EpalmError, UsageError
from epalm.samples import Modality
from epalm.settings import FORMS
from epalm.train.lm.injection import Injection
from tests.ablation_commands import BLIND, SEEING, InProcess, Runner
from tests.conftest import Epalm, save_small_vit
from tests.trials import Trial

SHORT = ("--set", "optim.max_steps=100", "--set", "decode.num_beams=1", "-m", "image")
ABOVE_BLIND = 0.1  # exact match after so few steps


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    """What is run in place of running it."""
    runner = Runner()
    monkeypatch.setattr(grid, "run_chains", runner)
    monkeypatch.chdir(tmp_path)
    return runner


def _page(folder: Path, *names: str) -> Path:
    page = folder / "page.md"
    page.write_text("".join(f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nafter\n" for name in names))
    return page


def test_the_table_has_every_variant_with_blind_and_chance(commands: Runner, epalm: Epalm, tmp_path: Path) -> None:
    page = _page(tmp_path, "variants")
    done = epalm("ablate", "variants", "--write", page, "--json")
    assert done.code == 0, done.err
    rows = {row["variant"]: row for row in json.loads(done.out)}
    assert list(rows) == [*FORMS, "blind", "chance"]
    assert rows["epalm-lin"]["figures"] == {"qa": [SEEING] * 3, "caption": [SEEING] * 3}
    assert rows["blind"]["figures"]["qa"] == [BLIND] * 3 and rows["chance"]["figures"]["qa"] == [0.2] * 3
    assert rows["epalm"]["share"] == 0.01
    assert len(commands.of("train")) == len(Modality) * 5  # epalm-pt-l is epalm-pt there
    text = page.read_text()
    assert text.startswith("before\n<!-- variants -->\n") and text.endswith("<!-- /variants -->\nafter\n")
    assert "| `epalm-lin` | 12 | 1.00% | 7 s | 90.0 | 90.0 | 90.0 |" in text
    assert "| blind | 12 |" in text and "| chance |  |  |  | 20.0 | 20.0 |" in text and "old" not in text


def test_what_is_scored_is_not_scored_again_and_what_failed_goes_on(commands: Runner, epalm: Epalm) -> None:
    commands.broken = "score --run runs/blind"
    stopped = epalm("ablate", "variants", "-m", "image")
    assert stopped.code == 1 and "ended with exit code 1" in stopped.err and "Traceback" not in stopped.err
    commands.broken = ""
    commands.ran.clear()
    assert epalm("ablate", "variants", "-m", "image").code == 0
    assert len(commands.of("train")) == 5  # which say that they are done
    assert [words[2].startswith("runs/blind") for words in commands.of("score")] == [True]
    plan = json.loads(epalm("ablate", "variants", "-m", "image", "--plan", "--json").out)
    assert [row["done"] for row in plan["trainings"]] == [True] * 5


def test_a_training_of_two_tables_is_one(commands: Runner, epalm: Epalm, tmp_path: Path) -> None:
    page = _page(tmp_path, "table-2", "variants")
    done = epalm("ablate", "all", "--write", page, "--json", "--set", "optim.max_steps=3")
    assert done.code == 0, done.err
    # As many steps for all: frozen, TimeSformer and no mask are the variant `epalm`.
    assert len(commands.of("train")) == 15 + (3 + 4 + 7 + 4) - 3
    assert len(commands.of("extract")) == 3 + 3 + 3  # of the modalities, of the encoders, of the masks
    told = json.loads(done.out)
    assert list(told) == [*TABLES, "variants"]
    text = page.read_text()
    for row in told["table-2"]["rows"]:
        published = "–" if row["published"]["BLEU-4"] is None else f"{row['published']['BLEU-4']:.2f}"
        measured = "90.0 (80.0–100.0)"
        figures = [measured, measured, f"{row['published']['CIDEr']:.2f}", published]
        assert f"| {' | '.join([row['choice'], row['here'], *figures])} |" in text
        assert row["measured"]["CIDEr"]["value"] == SEEING
    assert told["table-2"]["caption"] in text and "table-1" not in text
    live = [words for words in commands.of("train") if "encoder.train=true" in words]
    assert len(live) == 1 and "--from-cache" not in live[0]


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_what_the_paper_varies(name: str, commands: Runner, epalm: Epalm) -> None:
    plan = epalm("ablate", name, "--plan", "--json")
    assert plan.code == 0 and not commands.ran, plan.err
    trainings = json.loads(plan.out)["trainings"]
    choices = TABLES[name].choices(Sizes(8, (64, 128)))
    assert [row["settings"][1:] for row in trainings] == [list(choice.overrides) for choice in choices]
    assert {row["steps"] for row in trainings} == {PLAYGROUND_STEPS}
    assert not any(row["done"] for row in trainings)
    assert all(len(choice.published) == len(TABLES[name].measures) for choice in choices)


def test_masks_are_views_of_the_cache(commands: Runner, epalm: Epalm) -> None:
    assert epalm("ablate", "table-4").code == 0
    widths = [dict(pairwise(words)).get("--spec-augment") for words in commands.of("extract")]
    assert widths == [None, "12/12", "24/24", "32/32"]
    sets = [words[words.index("--feature-set") + 1] for words in commands.of("train")]
    assert len(set(sets)) == 4


def test_levels_fit_every_depth_and_every_token_is_read() -> None:
    for blocks in range(1, 65):
        start, end = late_blocks(blocks)
        assert 0 <= start < end <= blocks
        for tokens, first, last in levels(blocks).values():
            assert 0 <= first < last <= blocks and 1 <= tokens <= 6
            injection = Injection(tokens, first, last)
            assert {injection.token_of(block) for block in range(first, last)} == set(range(tokens))


def test_published_sizes_give_the_published_settings() -> None:
    assert late_blocks(32) == (19, 31) and late_blocks(24) == (11, 23) and late_blocks(8) == (4, 7)
    assert list(levels(32).values()) == [(1, 0, 1), (1, 0, 31), (1, 19, 31), (6, 19, 31)]
    assert masks((24, 96), PAPER_BANK) == (24, 96) and masks((24, 96), (64, 128)) == (12, 12)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "clotho:gone"], "needs a --recipe"),
        (["--data", "gone.jsonl", "--recipe", "vqa-v2"], "gone.jsonl"),
        (["--recipe", "coco-caption"], "table-1 is of qa"),
        (["--set", "lm.train=true"], "is what table-1 varies"),
        (["--weights", "bert=x"], "vit-frames"),
        (["--set", "lm.name=./nowhere"], "lm.name"),
        (["--data", "trial/world", "--recipe", "playground", "--split", "val"], "in split 'val'"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    words: list[str], said: str, trial: Trial, commands: Runner
) -> None:
    done = trial.epalm("ablate", "table-1", *words)
    assert done.code == 1 and done.err.count("error: ") == 1 and "Traceback" not in done.err
    assert said in done.err and not commands.ran


def test_ones_own_data_name_their_encoders_and_are_scored_again(trial: Trial, commands: Runner) -> None:
    words = ("ablate", "table-1", "--data", trial.world, "--recipe", "playground", "--weights", "vit=trial/weights")
    for _ in range(2):
        done = trial.epalm(*words, "--allow-missing", 2)
        assert done.code == 0, done.err
    assert len(commands.of("score")) == 6
    assert all(words[words.index("--weights") + 1] == "trial/weights" for words in commands.of("extract"))
    frozen, lm, both = commands.of("train")[:3]
    assert "lm.train=true" in lm and "lm.train=true" not in frozen and "--from-cache" not in both
    assert 'encoder.weights="trial/weights"' in both and "--allow-missing" in lm
    assert not any("max_steps" in word for word in both)


@pytest.mark.parametrize(
    "text",
    ["", "<!-- variants -->", "<!-- /variants --><!-- variants -->", 2 * "<!-- variants --><!-- /variants -->", None],
)
@pytest.mark.parametrize("name", ["variants", "all"])
def test_a_page_without_its_two_marks_is_refused_before_anything_runs(
    name: str, text: str | None, commands: Runner, epalm: Epalm, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    done = epalm("ablate", name, "--write", page, "--runs", tmp_path)
    assert done.code == 1 and str(page) in done.err and "Traceback" not in done.err
    assert not commands.ran


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a <!-- x --> b <!-- /x --> c <!-- y --> d <!-- /y -->")
    replace_marked(page, "x", "new")
    replace_marked(page, "x", "newer")
    assert page.read_text() == "a <!-- x -->\n\nnewer\n\n<!-- /x --> c <!-- y --> d <!-- /y -->"
    with pytest.raises(UsageError, match="<!-- z -->"):
        require_marks(page, "z")


def test_the_page_has_every_row() -> None:
    page = Path(__file__).parents[3] / "docs/ablations.md"
    for table in TABLES.values():
        before, after = require_marks(page, table.name)
        part = page.read_text()[len(before) : -len(after)]
        assert f"{PLAYGROUND_STEPS} steps each" in part
        for choice in table.choices(Sizes(8, (64, 128))):
            assert f"| {choice.label} | {choice.here} | " in part
            assert all(f" {figure:.2f} |" in part for figure in choice.published if figure is not None)


def test_a_command_is_made_of_what_the_one_before_has_left(tmp_path: Path) -> None:
    out, made = tmp_path / "recipe.json", []

    def chain(first: Command) -> Iterator[Command]:
        yield first
        made.append(first.out and first.out.read_text())
        yield Command(("recipes", "audiocaps"), tmp_path / "second.txt")

    run_chains("show", [chain(Command(("recipes", "vqa-v2"), tmp_path / "first.txt", out))], unit="pages", at_once=1)
    assert "[optim]" in str(made[0]) and "audio" in (tmp_path / "second.txt").read_text()
    failing = Command(("recipes", "vqa-v22"), tmp_path / "failed.txt", tmp_path / "failed.json")
    with pytest.raises(EpalmError, match=r"exit code 1: .*vqa-v22"):
        run_chains("show", [chain(failing)], unit="pages", at_once=1)
    assert len(made) == 1 and not (tmp_path / "failed.json").exists()
    run_chains("show", [[replace(failing, fine=(0, 1))]], unit="pages", at_once=1)


def test_a_stopped_table_goes_on_and_agrees_with_its_runs(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few pictures, language model and encoder unfrozen too; questions alone, so that Java is not started."""
    runner = InProcess(trial.epalm)
    monkeypatch.setattr(grid, "run_chains", runner)
    save_small_vit(Path("vit"), depth=6)
    few = ("--set", "optim.max_steps=2", "--set", 'data.tasks=["qa"]', "--set", "decode.num_beams=1")
    data = ("--data", trial.world, "--recipe", "playground", "--weights", "vit=vit")
    words = ("ablate", "table-1", *data, *few, "--json")
    runner.stop = 4  # between the second training and its scores
    assert trial.epalm(*words).code == 130
    folder = Path(".epalm/runs/ablations")
    begun = {run.parent: run.stat().st_mtime_ns for run in folder.glob("*/inputs.json")}
    assert len(begun) == 2
    runner.stop = -1
    done = trial.epalm(*words)
    assert done.code == 0, done.err
    assert {run: (run / "inputs.json").stat().st_mtime_ns for run in begun} == begun
    rows = json.loads(done.out)["rows"]
    assert {Path(row["run"]) for row in rows} == {run.parent for run in folder.glob("*/inputs.json")}
    trained = [row["trainable_parameters"] for row in rows]
    assert trained == sorted(set(trained))
    for row in rows:
        scores = json.loads((Path(row["run"]) / "scores.json").read_text())["tasks"]["qa"]["figures"]
        assert row["measured"]["VQA soft accuracy"]["value"] == scores["VQA soft accuracy"]["value"]
        assert row["steps"] == 2


@pytest.mark.slow
def test_every_variant_sees_more_than_the_blind_one(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained for a quarter of the steps, from one cache."""
    monkeypatch.setattr(grid, "run_chains", InProcess(epalm))
    monkeypatch.chdir(tmp_path)
    done = epalm("ablate", "variants", *SHORT, "--json")
    assert done.code == 0, done.err
    rows: dict[str, dict[str, Any]] = {row["variant"]: row for row in json.loads(done.out)}
    (qa,), (cider,) = rows["blind"]["figures"]["qa"], rows["blind"]["figures"]["caption"]
    for name in FORMS:
        assert rows[name]["figures"]["qa"][0] > qa + ABOVE_BLIND, name
        assert rows[name]["figures"]["caption"][0] > 2 * cider, name
        assert 0 < rows[name]["share"] < 0.1
