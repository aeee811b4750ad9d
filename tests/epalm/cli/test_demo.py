"""The main job at full length: what the demo must reach, and that its models answer on anybody's files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epalm.samples import Modality
from tests.browser import OpenPage
from tests.conftest import Epalm

MEDIA = Path(__file__).parents[3].parent / "shared" / "media"
LEAST = {"image": 0.85, "video": 0.80, "audio": 0.80}  # QA accuracy on the test split
ABOVE_BLIND = 0.30
TIMES_BLIND = 3  # caption CIDEr
pytestmark = pytest.mark.slow


def _run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The demo gives each of its processes a core by itself.
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    words = (sys.executable, "-m", "epalm", *words)
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    here = tmp_path_factory.mktemp("demo")
    done = _run("demo", "--json", cwd=here)
    assert "(right: " in done.stderr.partition("first answer, ")[2].splitlines()[1]
    return here, json.loads(done.stdout)


def test_the_table_has_every_modality_and_task(demo: tuple[Path, list[dict[str, Any]]]) -> None:
    here, rows = demo
    assert [(row["modality"], row["task"]) for row in rows] == [(m, t) for m in Modality for t in ("qa", "caption")]
    (written,) = here.glob(".epalm/runs/demo-*/demo.json")
    assert json.loads(written.read_text()) == rows


@pytest.mark.parametrize("modality", Modality)
def test_perception_is_what_makes_the_answers_right(
    modality: Modality, demo: tuple[Path, list[dict[str, Any]]]
) -> None:
    qa, caption = (row for row in demo[1] if row["modality"] == modality)
    assert qa["perception"] >= LEAST[modality]
    assert qa["perception"] >= qa["blind"] + ABOVE_BLIND
    assert caption["perception"] >= TIMES_BLIND * caption["blind"]


@pytest.mark.parametrize("modality", Modality)
def test_the_report_opens(modality: Modality, demo: tuple[Path, list[dict[str, Any]]], open_page: OpenPage) -> None:
    (page,) = demo[0].glob(f".epalm/runs/demo-*/report-{modality}.html")
    visit = open_page(page.as_uri())
    visit.page.wait_for_selector(".card .medium img")
    assert visit.page.locator("#differences .chip").count() == 4
    assert visit.page.locator(".card audio").count() == (24 if modality is Modality.AUDIO else 0)
    assert visit.faults == [] and visit.requests == [page.as_uri()] and visit.overflow() == 0


def test_predict_answers_on_real_files(
    demo: tuple[Path, list[dict[str, Any]]], epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not MEDIA.is_dir():
        pytest.skip(f"real media are not at {MEDIA}")
    lines = [json.loads(line) for line in (MEDIA / "manifest.jsonl").read_text().splitlines()]
    asked = {line["media"]: line["prompt"] for line in lines if line["task"] == "qa"}
    assert len(asked) >= len(Modality)
    monkeypatch.chdir(demo[0])
    for media, prompt in asked.items():
        modality = media.split("/")[0]
        done = epalm("predict", MEDIA / media, prompt, "--modality", modality, "--json")
        assert done.code == 0, done.err
        answer = json.loads(done.out)
        assert answer["question"] == prompt and isinstance(answer["text"], str)
        assert f"/{modality}" in answer["run"]
