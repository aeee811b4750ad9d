"""A data set of another package, one file, is known to every command; the page's examples are what is run."""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epalm import plugins
from epalm.datasets.benchmarks import benchmark_names, benchmarks
from epalm.errors import UsageError
from epalm.playground.generate import generate_playground
from epalm.samples import Modality
from tests.conftest import Epalm

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")


def _block(heading: str, language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE.split(f"## {heading}")[1].split("\n## ")[0], re.DOTALL)
    return str(block)


def _clear() -> None:
    plugins.installed.cache_clear()
    sys.modules.pop("flowers", None)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's example, installed: a module, and the metadata of a distribution."""
    folder = tmp_path / "site"
    (folder / "flowers-1.0.dist-info").mkdir(parents=True)
    (folder / "flowers.py").write_text(_block("Adding a data set", "python"))
    (folder / "flowers-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: flowers\nVersion: 1.0\n")
    _offer(folder, tomllib.loads(_block("Adding a data set", "toml"))["project"]["entry-points"]["epalm.datasets"])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    _clear()
    yield folder
    _clear()


def _offer(folder: Path, points: dict[str, str]) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (folder / "flowers-1.0.dist-info/entry_points.txt").write_text(f"[epalm.datasets]\n{lines}")


def test_a_data_set_of_another_package_goes_from_its_files_to_scores(package: Path, epalm: Epalm) -> None:
    root = generate_playground(Path("world"), Modality.IMAGE, counts=(8, 0, 0)).rename("data")
    (root / "train").rename(root / "pictures")
    pictures = sorted(path.name for path in (root / "pictures").iterdir())
    rows = [{"file": name, "flower": "rose" if n % 3 else "tulip"} for n, name in enumerate(pictures)]
    (root / "labels_train.json").write_text(json.dumps(rows[:4]))
    (root / "labels_test.json").write_text(json.dumps(rows[4:]))
    assert "flowers" in json.loads(epalm("datasets", "--json").out)
    assert re.search(r"^flowers,", epalm("datasets", "--format", "csv").out, re.MULTILINE)
    files = json.loads(epalm("datasets", "flowers", "--root", root, "--format", "json").out)
    assert [(file["found"], file["folder"], file["needed"]) for file in files] == [
        ("labels_train.json", False, True),
        ("labels_test.json", False, True),
        ("pictures", True, True),
    ]
    extracted = epalm(
        "extract", "-m", "image", "--data", f"flowers:{root}", "--weights", "playground", "--workers", 0, "--json"
    )
    assert extracted.code == 0, extracted.err
    assert json.loads(extracted.out)["encoded"] == len(rows)
    short = ("--set", "lm.name=playground", "--set", "optim.max_steps=1", "--set", "optim.batch_size=4")
    trained = epalm("train", "--from-cache", "--recipe", "vqa-v2", *short, "--no-canary", "--json")
    assert trained.code == 0, trained.err
    scored = epalm("score", "--num-beams", 1, "--metrics", "exact match", "--json")
    assert scored.code == 0, scored.err
    task = json.loads(scored.out)["tasks"]["qa"]
    assert task["scored"] == 4 and task["figures"]["exact match"].keys() >= {"value", "low", "high"}
    (root / "labels_test.json").write_text(json.dumps([{"file": "../x", "flower": "rose"}]))
    wrong = epalm("extract", "-m", "image", "--data", f"flowers:{root}", "--weights", "playground", "--plan")
    assert wrong.code == 1 and "labels_test.json, entry 1: 'file' is '../x', not a plain name" in wrong.err


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ({"gone": "flowers:NOTHING"}, "AttributeError"),
        ({"gone": "no_such_module:FLOWERS"}, "no_such_module"),
        ({"gone": "flowers:FLOWERS"}, "no Benchmark of that name"),
        ({"gone": "flowers:Files"}, "no Benchmark of that name"),
    ],
)
def test_what_is_no_data_set_is_one_message_and_leaves_the_others_alone(
    package: Path, point: dict[str, str], says: str, epalm: Epalm
) -> None:
    _offer(package, point)
    _clear()
    with pytest.raises(UsageError, match=says):
        benchmarks()
    assert "gone" in benchmark_names()
    assert epalm("datasets", "vqa-v2").code == 0
    refused = epalm("extract", "-m", "image", "--data", f"gone:{package}", "--plan")
    assert refused.code == 1 and says in refused.err


def test_a_data_set_is_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (samples,) = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    Path("samples.jsonl").write_text(samples)
    names: dict[str, object] = {}
    exec(_block("As a table", "python"), names)
    columns, counts = capsys.readouterr().out.splitlines()
    assert columns.startswith("['id', 'modality', 'media', 'task', 'split', 'prompt', 'answers'")
    assert counts == "{('test', 'qa'): 1, ('train', 'caption'): 1, ('train', 'qa'): 1}"
    frame: Any = names["frame"]
    assert frame["prompt"].tolist() == ["what animal is this?", None, "which animal is it?"]
    assert frame["answers"][0] == {"cat": 1.0} and frame["references"][1] == ("a cat on a mat",)
