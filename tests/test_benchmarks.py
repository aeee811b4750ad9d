"""The benchmarks run and give ratios; what the ratios are is for `just bench` to say."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("training", 6),
        ("decoding", 3),
        ("extraction", 6),
        ("cache", 4),
        ("scale", 6),
        ("crash", 1),
        ("scores", 4),
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
