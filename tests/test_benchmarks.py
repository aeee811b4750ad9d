"""The benchmarks run and give ratios; what the ratios are is for `just bench` to say."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import decoding_gpu
from benchmarks.training_gpu import WAYS, Size, ceiling, measure

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # all together minutes
@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("training", 11),
        ("decoding", 4),
        ("extraction", 6),
        ("cache", 4),
        ("streaming", 2),
        ("scale", 6),
        ("crash", 1),
        ("scores", 4),
        ("token_rows", 2),
    ],
)
def test_each_benchmark_gives_its_ratios(part: str, lines: int, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    words = [sys.executable, "-m", "benchmarks", part, "--quick", "--json", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())[part]
    assert len(figures) == lines
    for figure in figures:
        assert 0 < figure["lowest"] <= figure["median"] <= figure["highest"] < math.inf
        assert figure["rounds"] >= 1
    assert len({figure["name"] for figure in figures}) == lines
    assert f"{part}: " in done.stdout


def test_what_is_measured_on_a_gpu_runs_at_a_small_size() -> None:
    device = torch.device("cpu")
    size = Size("tiny", hidden=32, heads=2, width=8, blocks=4, start=2, words=300)
    best = ceiling(device, 32)
    for way in WAYS:
        line = measure(size, way, device, best, steps=1, batch_size=2, rounds=1)
        assert 0 < line.lowest <= line.median <= line.highest
        assert "samples/s" in line.note and "h (published: 43.2 h)" in line.note
    line = decoding_gpu.measure(size, device, rounds=1, batch_size=2)
    assert 0 < line.lowest <= line.median <= line.highest and "samples/s" in line.note
