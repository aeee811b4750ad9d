"""`epalm ablate`: the variants and the paper's tables from one cache, which go on where they were stopped."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from epalm.cli import grid
from epalm.cli.ablation import PLAYGROUND_STEPS
from epalm.cli.marked import replace_marked, require_marks
from epalm.cli.paper_tables import PAPER_BANK, TABLES, Sizes, late_blocks, levels, masks
from epalm.cli.side_by_side import Command
from epalm.errors import EpalmError, UsageError
from epalm.fingerprint import digest_json
from epalm.samples import Modality
from epalm.settings import FORMS
from epalm.train.injection import Injection
from tests.conftest import Epalm
from tests.trials import Trial

SHORT = ("--set", "optim.max_steps=100", "--set", "decode.num_beams=1", "-m", "image")
ABOVE_BLIND = 0.1  # exact match after so few steps
SEEING, BLIND = 0.9, 0.3


class Runner:
    """Runs nothing: every command leaves what it leaves, and `broken` says which fails."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.broken = ""

    def __call__(self, _title: str, chains: Sequence[Iterable[Command]], **_: object) -> None:
        for command in (command for chain in chains for command in chain):
            if self.broken and self.broken in str(command):
                raise EpalmError(f"`{command}` ended with exit code 1")
            self.ran.append(command.words)
            assert command.out is not None
            command.out.parent.mkdir(parents=True, exist_ok=True)
            command.out.write_text(json.dumps(self._said(command.words)))

    def _said(self, words: tuple[str, ...]) -> dict[str, Any]:
        options = dict(pairwise(words))
        if words[0] == "extract":
            return {"set_name": f"set-{len(self.ran)}"}
        if words[0] == "train":
            name = "blind" if "model.blind=true" in words else "seeing"
            summary = {"trainable_parameters": 12, "all_parameters": 1200, "seconds": 7.0, "steps": 10}
            return {**summary, "run": f"runs/{name}-{digest_json(words)[:8]}"}
        value = BLIND if "blind" in options["--run"] else SEEING
        figures = {name: {"value": value, "low": value - 0.1, "high": value + 0.1} for name in NAMES}
        task = {"metrics": dict.fromkeys(NAMES, value), "figures": figures, "chance": dict.fromkeys(NAMES, 0.2)}
        return {"run": Path(options["--run"]).name, "tasks": {"qa": task, "caption": task}}

    def of(self, stage: str) -> list[tuple[str, ...]]:
        return [words for words in self.ran if words[0] == stage]


NAMES = ("exact match", "CIDEr", "BLEU-4")


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
        (["--data", "gone.jsonl"], "needs a --recipe"),
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


@pytest.mark.slow
def test_every_variant_sees_more_than_the_blind_one(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained for a quarter of the steps, from one cache; the commands run in this process, which has started."""

    def run(_title: str, chains: Sequence[Iterable[Command]], **_: object) -> None:
        for command in (command for chain in chains for command in chain):
            ended = epalm(*command.words)
            assert ended.code == 0, ended.err
            assert command.out is not None
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
