"""The page about a real language model is made of what was trained and scored; figures are for the script to make."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import real_lm
from epalm import PLAYGROUND
from epalm.cli.bench import trainings
from epalm.datasets import load_dataset
from epalm.samples import Modality
from tests.bench_commands import Runner

WORD = "thing"


class _Scored(Runner):
    """Knows which modality a run is of, and gives its samples with predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.modality_of: dict[str, Modality] = {}

    def train(self, request: Any, **options: object) -> dict[str, Any]:
        summary = super().train(request, **options)
        self.modality_of[summary["run"]] = request.modality
        return summary

    def scores(self, run: str, split: str) -> pd.DataFrame:
        samples = load_dataset(PLAYGROUND, self.modality_of[run]).split(split)[:40]
        return pd.DataFrame([
            {
                "id": one.id, "task": one.task, "medium": one.media, "question": one.prompt, "prediction": run[:9],
                "answers": dict(one.answers), "references": list(one.references),
            }
            for one in samples
        ])  # fmt: skip


@pytest.mark.slow
def test_the_page_has_every_side_row_and_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm/config.json").write_text('{"model_type": "llama", "num_hidden_layers": 30}')
    (tmp_path / "page.md").write_text("before\n<!-- real-lm -->\nold\n<!-- /real-lm -->\nafter\n")
    runner = _Scored()
    monkeypatch.setattr(trainings, "api", runner)
    monkeypatch.setattr(real_lm, "api", runner)
    monkeypatch.setattr(real_lm, "answer_from_text", lambda _lm, _training, test: {one.id: WORD for one in test})
    words = ["real_lm", str(tmp_path / "lm"), "--work", str(tmp_path / "work"), "--write", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", words)
    for _ in range(2):  # the second time it goes on from what there is
        real_lm.main()
        assert len(runner.trained) % 10 == 0  # 6 of the grid, and the two sides of the other modalities
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("before\n<!-- real-lm -->") and text.endswith("<!-- /real-lm -->\nafter\n")
    for modality in Modality:
        assert f"| {modality} QA | 10 | 90.0 (80.0–100.0) | 30.0 (20.0–40.0) | 0.0 (" in text
        assert f"| {modality} CIDEr | 10 | 90.0" in text
    assert "| last six → early | 6@6:18 | 12 | 7 s | 90.0 (80.0–100.0) |" in text
    assert text.count(f"| runs/seei | runs/blin | {WORD} |") == 3 * 2 * 3
    assert "10 trainings, 1 at a time, took 1 min 10 s together, 0.70 s a step; with extraction" in text
    assert "old" not in text and text.partition("-->\n\n")[2].partition("\n\n<!-- /")[0] in capsys.readouterr().out
    times = json.loads((tmp_path / "work/times.json").read_text())
    assert len(times) == 1 + len(Modality) and all(one["done"] for one in times.values())
