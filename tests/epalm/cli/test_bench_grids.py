"""`epalm bench` on grids of one's own: axes, several seeds, what trainings share."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.tables import remake
from epalm.cli.bench.trainings import BenchRequest
from tests.bench_commands import BLIND, SEEING, Runner, page_for
from tests.conftest import Epalm

_SEEDS = """
title = "Mine"
modalities = ["image"]
columns = ["bytes", "intervals", "published", "ranks"]
seeds = [0, 1, 2]
bridges = ["epalm"]
few_shot = [16, 0.5]

[[measures]]
task = "qa"
name = "exact match"

[[rows]]
label = "all"
published = { "exact match" = 60.0 }

[[rows]]
label = "one token"
tokens = "all"
seeds = [7]
published = { "exact match" = 70.0 }

[[rows]]
label = "blind"
set = ["model.blind=true"]
published = { "exact match" = 10.0 }
"""


def test_rows_of_axes_and_several_seeds(commands: Runner, epalm: Epalm) -> None:
    Path("mine.toml").write_text(_SEEDS)
    done = epalm("bench", "mine.toml", "--json")
    assert done.code == 0, done.err
    records = json.loads(done.out)
    labels = ["all", "one token", "blind", "epalm, 16", "epalm, 0.5"]
    assert [(one["row"], len(one["runs"])) for one in records] == list(zip(labels, [3, 1, 3, 3, 3], strict=True))
    assert len(commands.trained) == 3 + 1 + 3 + 3 + 3
    settings = [request.changes.settings or [] for request in commands.trained]
    assert settings[1] == ["optim.seed=1"] and settings[3] == ['encoder.tokens="all"', "optim.seed=7"]
    assert settings[7] == ['model.bridge="epalm"', 'encoder.tokens="cls"', "data.few_shot=16", "optim.seed=0"]
    # All tokens first: they serve the others.
    assert [request.tokens for request in commands.extracted] == ["all", None, "cls"]
    whole, one, blind = (record["measured"]["exact match"] for record in records[:3])
    assert whole["by_seed"] == pytest.approx([SEEING] * 3) and whole["interval"] == "over 50 media and 3 seeds"
    assert one["value"] == SEEING and "by_seed" not in one and blind["value"] == pytest.approx(BLIND)
    detectable = [record["detectable"]["exact match"] for record in records]
    assert detectable[0] is None and all(value > 0 for value in detectable[2:])
    shown = epalm("bench", "mine.toml").out
    assert "mean of 1 or 3 seeds with the 95 % interval over media and seeds" in " ".join(shown.split())
    assert "smallest true difference from the first row" in " ".join(shown.split())
    page = page_for(Path(), "mine")
    remake(page, ["mine.toml"], BenchRequest())
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    assert rows[0][-1] == "exact match, rank here / published |"
    assert [row[-1] for row in rows[2:5]] == ["1 / 2 |", "1 / 1 |", "3 / 3 |"]
    assert rows[2][1] == "2.0 KiB" and rows[5][-1] == "– |"


def test_a_plan_names_the_feature_sets_that_are_shared(commands: Runner, epalm: Epalm) -> None:
    Path("mine.toml").write_text(_SEEDS)
    done = epalm("bench", "mine.toml", "table-2", "-m", "image", "-m", "video", "--plan", "--json")
    plan = epalm("bench", "mine.toml", "--plan")
    assert done.code == 0 and plan.code == 0 and not commands.trained, done.err + plan.err
    assert "13 trainings, 0 of them done" in plan.err
    assert "feature sets: 1; 0 B in the cache, 3.0 MiB to be extracted" in plan.err
    (name,) = {row["features"] for row in json.loads(done.out) if row["grids"] == ["mine"]}
    assert name.endswith("-all") and f"{name}: 0 B there, 3.0 MiB new, for 13 trainings" in plan.err
    assert len({row["features"] for row in json.loads(done.out)}) == 1 + 4
    two = epalm("bench", "table-2", "--plan").err
    assert "feature sets: 4; 2.0 MiB in the cache, 6.0 MiB to be extracted" in two  # of the averaged ViT


def test_a_training_reads_what_is_extracted_for_it(commands: Runner, epalm: Epalm) -> None:
    axes = 'bridges = ["limber", "mlp", "avgpool"]\n'
    Path("mine.toml").write_text(
        _SEEDS.partition("seeds =")[0] + axes + 'measures = [{ task = "caption", name = "CIDEr" }]\n'
    )
    assert epalm("bench", "mine.toml").code == 0
    tokens = {"limber": "cls", "mlp": "all", "avgpool": "pool:2x2"}
    assert {one.tokens for one in commands.extracted} == set(tokens.values())
    for training, (bridge, rule) in zip(commands.trained, tokens.items(), strict=True):
        settings = training.changes.settings or []
        assert {f'model.bridge="{bridge}"', f'encoder.tokens="{rule}"'} <= set(settings)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("few_shot = [1.5]", "few_shot"),
        ('bridges = "epalm"', "bridges"),
        ('bridges = ["none-such"]', "is no bridge"),
        ("seeds = [-1]", "seeds"),
        ("", "neither rows nor an axis"),
    ],
)
def test_axes_that_cannot_be_are_named(line: str, fault: str, commands: Runner, epalm: Epalm) -> None:
    text = 'title = "M"\nmodalities = ["image"]\nmeasures = [{ task = "qa", name = "exact match" }]\n'
    Path("mine.toml").write_text(f"{text}{line}\n")
    done = epalm("bench", "mine.toml")
    assert done.code == 1 and fault in done.err and "Traceback" not in done.err and not commands.trained
    Path("mine.toml").write_text(f"{text}seeds = [1]\nbridges = ['epalm']\n")
    done = epalm("bench", "mine.toml", "--set", "optim.seed=3")
    assert done.code == 1 and "optim.seed is what mine varies" in done.err


def _grid(measures: str, rows: str = "lms = ['playground']") -> str:
    return f"title = 'M'\nmodalities = ['image']\nmeasures = [{measures}]\n{rows}\n"


@pytest.mark.parametrize(
    ("task", "name"), [("qa", "exact-match"), ("qa", "CIDEr"), ("caption", "Meteor"), ("qa", "VQA accuracy (LAVIS)")]
)
def test_what_cannot_be_measured_is_told_before_anything_runs(
    task: str, name: str, commands: Runner, epalm: Epalm
) -> None:
    Path("mine.toml").write_text(_grid(f"{{ task = '{task}', name = '{name}' }}"))
    done = epalm("bench", "mine.toml")
    assert done.code == 1 and f"{name!r}, which is no metric of {task}" in done.err and not commands.extracted
    assert ("exact match" if task == "qa" else "METEOR") in done.err


def test_every_measure_of_the_grids_is_scored(commands: Runner, epalm: Epalm) -> None:
    own = "{ task = 'qa', name = 'VQA accuracy' }, { task = 'caption', name = 'METEOR' }"
    Path("plain.toml").write_text(_grid("{ task = 'qa', name = 'exact match' }"))
    Path("own.toml").write_text(_grid(own))
    assert epalm("bench", "plain.toml").code == 0
    commands.extracted.clear()
    commands.skipped = "METEOR"
    stopped = epalm("bench", "plain.toml", "own.toml")
    assert stopped.code == 1 and "METEOR, a measure of the grid, is not there: Java is missing" in stopped.err
    assert "install it" in stopped.err and "Traceback" not in stopped.err
    assert not any(row["done"] for row in json.loads(epalm("bench", "own.toml", "--plan", "--json").out))
    commands.extracted.clear()
    commands.skipped = ""
    done = epalm("bench", "plain.toml", "own.toml", "--json")
    assert done.code == 0, done.err
    assert [set(one["measured"]) for one in json.loads(done.out)] == [{"exact match"}, {"VQA accuracy", "METEOR"}]
    assert len(commands.scored) == 3
    for name in ("own.toml", "plain.toml"):
        commands.extracted.clear()
        assert epalm("bench", name).code == 0 and len(commands.scored) == 3


def test_a_row_that_shares_a_training_keeps_its_own_figure(commands: Runner, epalm: Epalm) -> None:
    rows = "[[rows]]\nlabel = 'mean'\nseeds = [0, 1, 2]\n[[rows]]\nlabel = 'one'\nseeds = [0]"
    Path("mine.toml").write_text(_grid("{ task = 'qa', name = 'exact match' }", rows))
    mean, one = (record["measured"]["exact match"] for record in json.loads(epalm("bench", "mine.toml", "--json").out))
    assert len(commands.trained) == 3 and len(mean["by_seed"]) == 3
    assert "by_seed" not in one and (one["low"], one["high"]) == (SEEING - 0.1, SEEING + 0.1)


def test_a_page_shows_every_row_and_asks_for_nothing(commands: Runner, epalm: Epalm) -> None:
    caption = "\n[[measures]]\ntask = 'caption'\nname = 'CIDEr'\n"
    twice = re.sub('label = "(all|one token)"', 'label = "<b>all</b>"', _SEEDS)  # rows may be called alike
    Path("mine.toml").write_text(twice + caption)
    for _ in range(2):  # it may be written over
        done = epalm("bench", "mine.toml", "--report", "page.html")
        assert done.code == 0, done.err
    page = Path("page.html").read_text()
    assert "&lt;b&gt;all&lt;/b&gt;" in page and "<b>" not in page and "epalm, 0.5" in page
    assert (
        [row.count('<svg class="scale"') for row in page.split("<tr>")[2:]] == [2] * 5
        and "<script" not in page
        and "default-src &#39;none&#39;" in page
    )
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)
    Path("theirs.html").write_text("mine")
    refused = epalm("bench", "mine.toml", "--report", "theirs.html")
    assert refused.code == 1 and "theirs.html is there already" in refused.err
    assert epalm("bench", "mine.toml", "--report", "theirs.html", "--force").code == 0
