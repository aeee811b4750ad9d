"""The registry of metrics: the page lists what it has, and other packages add to it what all commands then know."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from epalm import plugins
from epalm.errors import UsageError
from epalm.evaluate.metrics import registry
from epalm.evaluate.metrics.registry import choose_metrics, judge, metrics
from epalm.samples import Task
from tests.conftest import Epalm

PAGE = (Path(__file__).parents[3] / "docs/scores.md").read_text(encoding="utf-8")
OURS = {"first word", "length ratio"}


def _clear() -> None:
    for cached in (plugins.installed, registry._plugin):
        cached.cache_clear()
    sys.modules.pop("my_metrics", None)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's example, installed: a module, and the metadata of a distribution."""
    source = PAGE.split("## Adding a metric")[1]
    (module,) = re.findall(r"```python\n(.*?)```", source, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", source, re.DOTALL)
    folder = tmp_path / "site"
    (folder / "my_metrics-1.5.dist-info").mkdir(parents=True)
    (folder / "my_metrics.py").write_text(module)
    (folder / "my_metrics-1.5.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: my-metrics\nVersion: 1.5\n")
    _offer(folder, tomllib.loads(project)["project"]["entry-points"]["epalm.metrics"])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    _clear()
    yield folder
    _clear()


def _offer(folder: Path, points: dict[str, str]) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (folder / "my_metrics-1.5.dist-info/entry_points.txt").write_text(f"[epalm.metrics]\n{lines}")


def test_a_metric_of_another_package_is_known_to_every_command(package: Path, epalm: Epalm) -> None:
    sample = {"modality": "image", "split": "test"}
    rows = [
        {**sample, "id": f"q{n}", "media": f"{n}.jpg", "task": "qa", "prompt": "?", "answers": {"red car": 1.0}}
        for n in range(20)
    ] + [{**sample, "id": f"c{n}", "media": f"{n}.jpg", "task": "caption", "references": ["a cat"]} for n in range(20)]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, every in (("one", 2), ("two", 4)):
        predicted = {f"q{n}": "red" if n % every else "blue" for n in range(20)}
        predicted |= {f"c{n}": "a cat" if n % every else "a cat again" for n in range(20)}
        Path(f"{name}.json").write_text(json.dumps(predicted))
        words = ("--data", "data.jsonl", "--metrics", "exact match,first-word,LENGTH RATIO", "--json")
        done = epalm("score", "--predictions", f"{name}.json", *words)
        assert done.code == 0, done.err
    tasks = json.loads(done.out)["tasks"]
    figure = tasks["qa"]["figures"]["first word"]
    assert (figure["value"], figure["backend"]) == (0.75, "my-metrics 1.5") and figure["low"] < 0.75 < figure["high"]
    figure = tasks["caption"]["figures"]["length ratio"]
    assert figure["value"] == pytest.approx(1.125) and figure["low"] < 1.125 < figure["high"]
    lines = [json.loads(line) for line in Path("two.scores.per-sample.jsonl").read_text().splitlines()]
    assert lines[0]["scores"] == {"exact match": 0, "first word": 0} and lines[-1]["scores"] == {"lengths": [2, 2]}
    compared = json.loads(epalm("compare", "one.scores.json", "two.scores.json", "--json").out)
    parts = {
        name: one for part in compared["comparisons"][0]["tasks"].values() for name, one in part["measures"].items()
    }
    assert parts.keys() == OURS | {"exact match"}
    assert parts["first word"]["difference"] == 0.25 and parts["first word"]["low"] > 0
    assert parts["length ratio"]["difference"] == pytest.approx(-0.125) and parts["length ratio"]["high"] < 0
    assert epalm("report", "one.scores.json", "two.scores.json", "--samples", 0, "--out", "r.html").code == 0
    page = Path("r.html").read_text()
    assert all(page.count(f'<th scope="row">{name}</th>') == 2 for name in OURS)  # of figures, of differences
    command = [sys.executable, "-m", "epalm", "score", "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment(package)).stdout
    assert all(name in " ".join(re.sub(r"[│\n]", " ", helped).split()) for name in (*OURS, "CIDEr"))


def _environment(package: Path) -> dict[str, str]:
    import os

    root = Path(__file__).parents[3]
    return os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{root}", "COLUMNS": "200"}


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ({"third": "my_metrics:Nothing"}, "AttributeError"),
        ({"third": "no_such_module:Metric"}, "no_such_module"),
        ({"third": "my_metrics:Task"}, "no Metric of that name"),
        ({"third": "my_metrics:FirstWord"}, "no Metric of that name"),
        ({"CIDEr": "my_metrics:FirstWord"}, "no Metric of that name"),
    ],
)
def test_what_is_no_metric_is_one_message_that_names_it(
    package: Path, point: dict[str, str], says: str, epalm: Epalm
) -> None:
    _offer(package, point)
    _clear()
    with pytest.raises(UsageError, match=says) as caught:
        metrics()
    assert next(iter(point)) in caught.value.message and caught.value.hint


def test_statistics_that_are_no_numbers_of_each_sample_are_skipped(package: Path, epalm: Epalm) -> None:
    module = package / "my_metrics.py"
    module.write_text(module.read_text().replace("return [[", "return [[1, 1]] + [["))
    sample = {"id": "1", "modality": "image", "media": "m", "task": "caption", "split": "test", "references": ["a"]}
    Path("data.jsonl").write_text(json.dumps(sample))
    Path("p.json").write_text('{"1": "a"}')
    done = epalm("score", "--predictions", "p.json", "--data", "data.jsonl", "--metrics", "length ratio")
    assert done.code == 3 and "length ratio gave an array of shape (2, 2) for 1 samples" in done.err


def test_the_page_lists_the_metrics_of_the_registry() -> None:
    rows: dict[str, str] = {}
    for metric in metrics().values():
        if not metric.other_form_of:
            of = metric.samples or {Task.QA: "questions", Task.CAPTION: "captions"}[metric.task]
            by = metric.library + (f", with {metric.needs}" if metric.needs else "")
            names = [name for name in metrics() if name.startswith("BLEU-") and metric.name.startswith("BLEU-")]
            name = f"`{names[0]}` … `{names[-1]}`" if names else f"`{metric.name}`"
            rows[name] = f"| {name} | {metric.summary} | {of} | {by}"
    table = [line for line in PAGE.split("## The metrics")[1].split("**")[0].splitlines() if line.startswith("| `")]
    assert len(table) == len(rows)
    assert all(line.startswith(row) for line, row in zip(table, rows.values(), strict=True))
    forms = re.findall(r"\| `(VQA accuracy.*?)`", PAGE.split("**Which VQA accuracy.**")[1])
    assert forms == [name for name in metrics() if name.startswith("VQA accuracy")]


def test_names_are_found_however_they_are_written() -> None:
    assert choose_metrics("BLEU, vqa-accuracy") == ("VQA accuracy", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
    for words in ("bleu,rogue", ","):
        with pytest.raises(UsageError, match="--metrics"):
            choose_metrics(words)


def test_one_metric_stands_for_a_sample() -> None:
    assert judge(["exact match", "VQA accuracy", "VQA accuracy (LAVIS)"]) == "VQA accuracy"
    assert judge(["BLEU-4", "ROUGE-L", "METEOR counts", "METEOR"]) == "METEOR"
    assert judge(["BLEU-4", "of a package that is gone"]) is None
