"""Killed at any moment, an extraction loses the block in flight and nothing else."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epalm.cache.care.collect import GRACE, leftovers
from epalm.cache.store import Cache
from tests import crash_host

MEDIA, KILLS = 120, 64
HOST = Path(crash_host.__file__)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for number in range(MEDIA):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number:03d}.png")
    for number in (5, 47, 100):
        (folder / f"{number:03d}.png").write_text(f"no picture {number}")
    return folder


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that was never interrupted."""
    cache = tmp_path_factory.mktemp("whole") / "cache"
    crash_host.run(media, cache)
    return cache


def _host(media: Path, cache: Path, plan: list[dict[str, Any]]) -> list[int]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, str(HOST), str(media), str(cache), json.dumps(plan)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    results: list[int] = json.loads(done.stdout.splitlines()[-1])
    return results


def _blocks(cache: Path) -> dict[str, tuple[tuple[str, ...], bytes]]:
    """Block → its rows, and its values as they lie on disk."""
    (features,) = Cache(cache).sets()
    return {record.block: (record.rows, features.objects.read(record.chunk)) for record in features.records()}


def _require_same(cache: Path, whole: Path) -> None:
    (features,) = Cache(cache).sets()
    assert not features.verify()  # records, checksums, no NaN
    rows = [row for record in features.records() for row in record.rows]
    assert len(rows) == len(set(rows)) == MEDIA - 3
    assert _blocks(cache) == _blocks(whole)
    assert {entry.media for entry in features.ledger.entries()} == {"005.png", "047.png", "100.png"}


def _age(cache: Path) -> None:
    """Make all that is there two days old, as if the kills had been then."""
    then = time.time() - 2 * GRACE
    for path in cache.rglob("*"):
        os.utime(path, (then, then))


@pytest.mark.slow
def test_killed_at_random_moments(media: Path, whole: Path, tmp_path: Path) -> None:
    cache, rng = tmp_path / "cache", random.Random(0)
    plan: list[dict[str, Any]] = [{"after": rng.uniform(0.0, 0.15), "seconds": 0.01} for _ in range(KILLS)]
    results = _host(media, cache, plan)
    killed = results.count(-9)
    while killed < 60:  # a fast machine finishes early: begin again with what is left of the kills
        assert killed, results
        for record in sorted((cache / "sets").glob("*/records/*.json"))[::2]:
            record.unlink()
        results = _host(media, cache, plan)
        killed += results.count(-9)
    _age(cache)
    assert _host(media, cache, [{}]) == [0]
    _require_same(cache, whole)
    (features,) = Cache(cache).sets()
    assert not [one.key for one in leftovers(features.objects)]
    assert not [path for path in features.objects.walk() if path.key.rpartition("/")[2].startswith(".0")]


@pytest.mark.slow
def test_killed_at_each_step_of_making_a_set_and_committing_its_blocks(media: Path, tmp_path: Path) -> None:
    few = tmp_path / "media"
    few.mkdir()
    for path in sorted(media.iterdir())[:20]:  # three blocks, the last a short one, and a bad file
        (few / path.name).write_bytes(path.read_bytes())
    assert _host(few, tmp_path / "whole", [{}]) == [0]
    whole, steps = _blocks(tmp_path / "whole"), int((tmp_path / "whole.steps").read_text())
    assert len(whole) == 3 and steps > 40
    plan = [{"step": step, "cache": f"{step}"} for step in range(steps)]
    assert _host(few, tmp_path / "cache", plan) == [-9] * steps
    rest = [{"cache": f"{step}"} for step in range(steps)]
    assert _host(few, tmp_path / "cache", rest) == [0] * steps
    for step in range(steps):
        (features,) = Cache(tmp_path / f"{step}").sets()
        assert not features.verify(), step
        assert _blocks(tmp_path / f"{step}") == whole, step


def test_no_more_is_encoded_again_than_was_in_flight(media: Path, whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plan: list[dict[str, Any]] = [{"after": 0.15, "seconds": 0.005} for _ in range(12)]
    kills = _host(media, cache, [*plan, {}]).count(-9)
    encoded = sum(int(line) for line in (tmp_path / "cache.log").read_text().split())
    assert MEDIA - 3 <= encoded <= MEDIA - 3 + kills * crash_host.BLOCK_ROWS
    _require_same(cache, whole)
