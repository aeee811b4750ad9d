"""`epalm bench`: the variants and the paper's tables from one cache, which go on where they were stopped."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.marks import replace_marked, require_marks
from benchmarks.tables import remake
from epalm.cli.bench import trainings
from epalm.cli.bench.trainings import BenchRequest
from epalm.errors import UsageError
from epalm.grids import carried_over, grids, load_grid
from epalm.recipes.settings import FORMS
from epalm.samples import Modality
from tests.bench_commands import BLIND, SEEING, Runner, Stopping, page_for
from tests.conftest import Epalm, save_small_vit
from tests.dask_workers import Workers
from tests.trials import Trial

USUAL = [name for name in grids() if name not in ("bridges", "levels-smollm2")]
TABLES = [name for name in USUAL if name != "variants"]
STEPS = 100  # of the paper's tables on the playground: a quarter of the recipe's, differences show
SHORT = ("--set", "optim.max_steps=100", "--set", "decode.num_beams=1", "-m", "image")
MEASURES = ("exact match", "CIDEr")
ABOVE_BLIND = 0.1  # exact match after so few steps


def test_the_table_has_every_variant_with_blind_and_chance(commands: Runner, epalm: Epalm, tmp_path: Path) -> None:
    done = epalm("bench", "variants", "--json")
    assert done.code == 0, done.err
    records = json.loads(done.out)
    assert [one["row"] for one in records[::3]] == [*FORMS, "blind"]
    assert [one["modality"] for one in records] == [*Modality] * 6
    values = {
        row: [
            [one["measured"][name]["value"] for one in records if one["row"] == row]
            for name in ("exact match", "CIDEr")
        ]
        for row in ("epalm-lin", "blind")
    }
    assert values == {"epalm-lin": [[SEEING] * 3] * 2, "blind": [[BLIND] * 3] * 2}
    assert all(one["chance"] == {"exact match": 0.2, "CIDEr": 0.2} for one in records)
    assert {one["trainable_parameters"] / one["all_parameters"] for one in records} == {0.01}
    assert len(commands.trained) == len(Modality) * 5  # epalm-pt-l is epalm-pt there
    remake(page := page_for(tmp_path, "variants"), ["variants"], BenchRequest())
    text = page.read_text()
    assert text.startswith("before\n<!-- variants -->\n") and text.endswith("<!-- /variants -->\nafter\n")
    assert "| `epalm-lin` | 12 | 1.00% | 7 s | 90.0 | 90.0 | 90.0 |" in text
    assert "| blind | 12 |" in text and "| chance |  |  |  | 20.0 | 20.0 |" in text and "old" not in text
    assert "| variant | trained parameters | of all | training | image QA | image CIDEr | video QA |" in text


def test_a_table_is_a_frame_too(commands: Runner, epalm: Epalm) -> None:
    frame = pd.read_csv(io.StringIO(epalm("bench", "table-2", "variants", "-m", "video", "--format", "csv").out))
    assert list(frame["grid"]) == ["table-2"] * 4 + ["variants"] * 6 and set(frame["modality"]) == {"video"}
    assert json.loads(frame["measured"][0])["CIDEr"]["value"] == SEEING


def test_what_is_scored_is_not_scored_again_and_what_failed_goes_on(commands: Runner, epalm: Epalm) -> None:
    commands.broken = "blind"
    stopped = epalm("bench", "variants", "-m", "image")
    assert stopped.code == 1 and "the scoring broke" in stopped.err and "Traceback" not in stopped.err
    assert "bench/logs/image-" in stopped.err and "mend it" in stopped.err
    commands.broken = ""
    commands.extracted.clear()
    commands.trained.clear()
    commands.scored.clear()
    assert epalm("bench", "variants", "-m", "image").code == 0
    assert len(commands.trained) == 5  # which say that they are done
    assert [str(request.run).startswith("runs/blind") for request in commands.scored] == [True]
    plan = json.loads(epalm("bench", "variants", "-m", "image", "--plan", "--json").out)
    assert [row["done"] for row in plan] == [True] * 5


def test_another_split_is_scored_anew(commands: Runner, epalm: Epalm) -> None:
    words = ("bench", "variants", "-m", "image", "--split")
    for split, anew in (("test", 5), ("val", 5), ("val", 0), ("test", 5)):
        plan = json.loads(epalm(*words, split, "--plan", "--json").out)
        assert [row["done"] for row in plan] == [not anew] * 5
        commands.extracted.clear()
        commands.scored.clear()
        assert epalm(*words, split).code == 0
        assert [request.split for request in commands.scored] == [split] * anew


def test_bad_media_are_allowed_or_end_it(commands: Runner, epalm: Epalm) -> None:
    commands.bad = 2
    stopped = epalm("bench", "table-1", "--allow-missing", 1)
    assert stopped.code == 1 and "2 media are bad" in stopped.err and not commands.trained
    assert epalm("bench", "table-1", "--allow-missing", 2).code == 0
    assert [request.allow_missing for request in commands.trained] == [2, 2, 0]  # the last has its encoder in the loop


def test_a_training_of_two_tables_is_one(commands: Runner, epalm: Epalm, tmp_path: Path) -> None:
    done = epalm("bench", "all", "--json", "--set", "optim.max_steps=3")
    assert done.code == 0, done.err
    # As many steps for all: frozen, TimeSformer and no mask are the variant `epalm`.
    assert len(commands.trained) == 15 + (3 + 4 + 7 + 4) - 3
    assert len(commands.extracted) == 3 + 3 + 3  # of the modalities, of the encoders, of the masks
    records = json.loads(done.out)
    assert list(dict.fromkeys(row["grid"] for row in records)) == USUAL
    live = [request for request in commands.trained if "encoder.train=true" in (request.changes.settings or ())]
    assert [request.from_cache for request in live] == [False]
    remake(page := page_for(tmp_path, "table-2"), ["table-2"], BenchRequest(settings=["optim.max_steps=3"]))
    text = page.read_text()
    for row in (row for row in records if row["grid"] == "table-2"):
        published = "–" if row["published"]["BLEU-4"] is None else f"{row['published']['BLEU-4']:.2f}"
        measured = "90.0 (80.0–100.0)"
        figures = [measured, measured, f"{row['published']['CIDEr']:.2f}", published]
        assert f"| {' | '.join([row['row'], row['here'], *figures])} |" in text
        assert row["measured"]["CIDEr"]["value"] == SEEING
    assert "Published for MSRVTT captions." in text and "10 steps each" in text and "CIDEr 50/50" in text


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_what_the_paper_varies(name: str, commands: Runner, epalm: Epalm) -> None:
    plan = epalm("bench", name, "--plan", "--json")
    assert plan.code == 0 and not commands.trained, plan.err
    trainings, grid = json.loads(plan.out), load_grid(name)
    for training, row in zip(trainings, grid.rows, strict=True):
        carried = zip(("tokens", "start", "end"), carried_over(row.inject, 8) if row.inject else (), strict=False)
        assert training["settings"][1:] == [*row.set, *(f"model.{key}={value}" for key, value in carried)]
        assert set(row.published) <= {measure.name for measure in grid.measures}
    assert {row["steps"] for row in trainings} == {STEPS}
    assert not any(row["done"] for row in trainings)


def test_masks_are_views_of_the_cache(commands: Runner, epalm: Epalm) -> None:
    assert epalm("bench", "table-4").code == 0
    widths = [(request.views, request.spec_augment) for request in commands.extracted]
    assert [views for views, _ in widths] == [0, 4, 4, 4]
    assert [width for _, width in widths[1:]] == ["12/12", "24/24", "32/32"]
    sets = [request.feature_set for request in commands.trained]
    assert len(set(sets)) == 4


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--data", "clotho:gone"], "needs a --recipe"),
        (["--data", "gone.jsonl", "--recipe", "vqa-v2"], "gone.jsonl"),
        (["--recipe", "coco-caption"], "table-1 is of qa"),
        (["--set", "lm.train=true"], "is what table-1 varies"),
        (["--weights", "bert=x"], "vit-frames"),
        (["--set", "lm.name=./nowhere"], "lm.name"),
        (["--data", "trial/world", "--recipe", "playground", "--split", "val"], "in split 'val'"),
        (["table-5"], "no grid 'table-5'"),
        (["gone.toml"], "gone.toml"),
        (["-m", "video"], "table-1 is of image"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    words: list[str], fault: str, trial: Trial, commands: Runner
) -> None:
    done = trial.epalm("bench", "table-1", *words)
    assert done.code == 1 and done.err.count("error: ") == 1 and "Traceback" not in done.err
    assert fault in done.err and not commands.extracted


def test_ones_own_grid_is_a_file(commands: Runner, epalm: Epalm) -> None:
    rows = '[[rows]]\nlabel = "a"\n[[rows]]\nlabel = "b"\nset = ["optim.seed=1"]\nframes = 16\n'
    text = f'title = "Mine"\nmodalities = ["video"]\nmeasures = [{{ task = "qa", name = "exact match" }}]\n{rows}'
    Path("mine.toml").write_text(text)
    records = json.loads(epalm("bench", "mine.toml", "--json").out)
    assert [(one["grid"], one["row"]) for one in records] == [("mine", "a"), ("mine", "b")]
    assert commands.trained[1].changes.settings == ["optim.seed=1"] and commands.extracted[1].frames == 16
    shown = epalm("bench", "mine.toml", "variants", "-m", "video")
    assert "mine: Mine. Measured on the playground" in shown.out and "90.0 (80.0–100.0)" in shown.out
    page = (Path(__file__).parents[3] / "docs/ablations.md").read_text()
    Path("page.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert [row.encoder for row in load_grid("page.toml").rows] == [None, "vit-frames"]
    Path("variants.toml").write_text(text)  # the built-in grid's name
    same = epalm("bench", "variants.toml", "variants")
    assert same.code == 1 and "two grids have the name 'variants'" in same.err
    Path("mine.toml").write_text(text.replace("label", "lable"))
    faulty = epalm("bench", "mine.toml")
    assert faulty.code == 1 and "rows.0.label" in faulty.err and "rows.1.lable" in faulty.err


def test_ones_own_data_name_their_encoders_and_are_scored_again(trial: Trial, commands: Runner) -> None:
    words = ("bench", "table-1", "--data", trial.world, "--recipe", "playground", "--weights", "vit=trial/weights")
    for _ in range(2):
        done = trial.epalm(*words, "--allow-missing", 2)
        assert done.code == 0, done.err
    assert len(commands.scored) == 6
    assert all(request.weights == "trial/weights" for request in commands.extracted)
    frozen, lm, both = (request.changes.settings or [] for request in commands.trained[:3])
    assert "lm.train=true" in lm and "lm.train=true" not in frozen
    assert [request.from_cache for request in commands.trained[:3]] == [True, True, False]
    assert 'encoder.weights="trial/weights"' in both and commands.trained[1].allow_missing == 2
    assert not any("max_steps" in word for word in both)


@pytest.mark.parametrize(
    "text",
    ["", "<!-- variants -->", "<!-- /variants --><!-- variants -->", 2 * "<!-- variants --><!-- /variants -->", None],
)
def test_a_page_without_its_two_marks_is_refused_before_anything_runs(
    text: str | None, commands: Runner, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(page))):
        remake(page, ["variants"], BenchRequest(runs=tmp_path))
    assert not commands.extracted


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a <!-- x --> b <!-- /x --> c <!-- y --> d <!-- /y -->")
    replace_marked(page, "x", "new")
    replace_marked(page, "x", "newer")
    assert page.read_text() == "a <!-- x -->\n\nnewer\n\n<!-- /x --> c <!-- y --> d <!-- /y -->"
    with pytest.raises(UsageError, match="<!-- z -->"):
        require_marks(page, "z")


def test_a_stopped_table_goes_on_and_agrees_with_its_runs(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few pictures, language model and encoder unfrozen too; questions alone, so that Java is not started."""
    runner = Stopping()
    monkeypatch.setattr(trainings, "api", runner)
    save_small_vit(Path("vit"), depth=6)
    few = ("--set", "optim.max_steps=2", "--set", 'data.tasks=["qa"]', "--set", "decode.num_beams=1")
    data = ("--data", trial.world, "--recipe", "playground", "--weights", "vit=vit")
    words = ("bench", "table-1", *data, *few, "--json")
    runner.stop = 4  # between the second training and its scores
    assert trial.epalm(*words).code == 130
    folder = Path(".epalm/runs/bench")
    begun = {run.parent: run.stat().st_mtime_ns for run in folder.glob("*/inputs.json")}
    assert len(begun) == 2
    runner.stop = -1
    done = trial.epalm(*words)
    assert done.code == 0, done.err
    assert {run: (run / "inputs.json").stat().st_mtime_ns for run in begun} == begun
    rows = json.loads(done.out)
    assert {Path(run) for row in rows for run in row["runs"]} == {run.parent for run in folder.glob("*/inputs.json")}
    trained = [row["trainable_parameters"] for row in rows]
    assert trained == sorted(set(trained))
    for row in rows:
        scores = json.loads((Path(row["runs"][0]) / "scores.json").read_text())["tasks"]["qa"]["figures"]
        assert row["measured"]["VQA soft accuracy"]["value"] == scores["VQA soft accuracy"]["value"]
        assert row["steps"] == 2


def test_the_workers_of_a_cluster_give_the_same_scores(trial: Trial, dask_workers: Workers) -> None:
    save_small_vit(Path("vit"), depth=6)
    few = ("--set", "optim.max_steps=2", "--set", 'data.tasks=["qa"]', "--set", "decode.num_beams=1")
    data = ("--data", trial.world.resolve(), "--recipe", "playground", "--weights", f"vit={Path('vit').resolve()}")
    cache = ("--cache", trial.root.parent.resolve() / "cache")
    alone, shared = (
        trial.epalm("bench", "table-1", *data, *few, *cache, "--runs", Path(name).resolve(), "--json", *words)
        for name, words in (("alone", ()), ("shared", ("--dask", dask_workers.address)))
    )
    assert alone.code == 0 and shared.code == 0, alone.err + shared.err
    kept = [
        [(row["row"], row["steps"], row["trainable_parameters"], row["measured"]) for row in json.loads(done.out)]
        for done in (alone, shared)
    ]
    assert kept[0] == kept[1] and "3 of 3 trained and scored" in shared.err


@pytest.mark.slow
def test_every_variant_sees_more_than_the_blind_one(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained for a quarter of the steps, from one cache."""
    monkeypatch.chdir(tmp_path)
    done = epalm("bench", "variants", *SHORT, "--json")
    assert done.code == 0, done.err
    rows: dict[str, dict[str, Any]] = {row["row"]: row for row in json.loads(done.out)}
    qa, cider = (rows["blind"]["measured"][name]["value"] for name in MEASURES)
    for name in FORMS:
        assert rows[name]["measured"]["exact match"]["value"] > qa + ABOVE_BLIND, name
        assert rows[name]["measured"]["CIDEr"]["value"] > 2 * cider, name
        assert 0 < rows[name]["trainable_parameters"] / rows[name]["all_parameters"] < 0.1
