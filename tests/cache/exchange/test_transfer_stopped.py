"""Transfers that are stopped: what has arrived is whole, and the next one goes on from it."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from epalm.cache.care.collect import delete_all, leftovers
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.errors import CacheError
from tests.cache.test_feature_set import SPEC
from tests.feature_sets import BLOCKS, Block, contents, make_set, move_set, require_same
from tests.passing_objects import passing, seen_cache

AT_ONCE = 8  # blocks on their way
KILLS = 8
_PUSH = """
import sys, zarr
from epalm.cache.store import Cache
from epalm.cache.exchange.transfer import plan_transfer, run_transfer
plan = plan_transfer(Cache(sys.argv[1]).sets()[0], Cache(sys.argv[2]))
print(len(plan.blocks), flush=True)
run_transfer(plan, "push")
"""


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path / "here", BLOCKS)


class _KilledError(BaseException):
    """Stands for kill -9 at one step: nothing after it is done."""


def test_stopped_at_any_step_a_transfer_leaves_whole_blocks_and_goes_on(
    features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epalm.cache.exchange.transfer._AT_ONCE", 1)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    step = 0
    while True:
        where, left = tmp_path / f"there-{step}", [step]

        def see(what: str, key: str, data: bytes, left: list[int] = left) -> bytes:
            if what != "read":
                if left[0] == 0:
                    raise _KilledError
                left[0] -= 1
            return data

        try:
            move_set(features, seen_cache(where, see))
        except _KilledError:
            step += 1
        else:
            break
        for name in Cache(where).set_names():
            arrived = Cache(where).load(name)
            assert arrived.verify() == []
            assert contents(arrived).items() <= contents(features).items()
        move_set(features, Cache(where))
        require_same(features, where)
    assert step > 3 * len(BLOCKS)


def test_a_store_that_fails_ends_the_transfer_at_once(features: FeatureSet, tmp_path: Path) -> None:
    asked = []

    def fail(what: str, key: str, data: bytes) -> bytes:
        if "/blocks/" in f"/{key}":
            asked.append(key)
            raise CacheError("the store has failed")
        return data

    source = FeatureSet(passing(features.objects, fail), features.spec)
    for move in (
        lambda: move_set(source, Cache(tmp_path / "there")),
        lambda: move_set(features, seen_cache(tmp_path / "there", fail)),
    ):
        with pytest.raises(CacheError, match="the store has failed"):
            move()
    assert Cache(tmp_path / "there").load(features.name).records() == []


@pytest.mark.slow
def test_killed_at_random_moments_a_transfer_goes_on(tmp_path: Path) -> None:
    spec, rng = replace(SPEC, width=2048), random.Random(0)
    features = make_set(tmp_path / "here", [Block(range(n, n + 32)) for n in range(0, 2048, 32)], spec)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, "-c", _PUSH, str(tmp_path / "here"), str(tmp_path / "there")]
    left, killed = len(features.records()), 0
    for _ in range(KILLS):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout
        assert int(process.stdout.readline()) == left  # what was committed is not copied again
        time.sleep(rng.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        killed += process.wait() == -signal.SIGKILL
        arrived = Cache(tmp_path / "there").load(features.name) if Cache(tmp_path / "there").set_names() else None
        if arrived:
            assert arrived.verify() == []
            left = len(features.records()) - len(arrived.records())
    assert killed
    move_set(features, Cache(tmp_path / "there"))
    require_same(features, tmp_path / "there")
    objects = Cache(tmp_path / "there").load(features.name).objects
    parts = {one.key.split("/")[1] for one in leftovers(objects, grace=-1) if one.key.startswith("blocks/")}
    assert len(parts) <= AT_ONCE * killed
    delete_all(objects, leftovers(objects, grace=-1))
    require_same(features, tmp_path / "there")
    assert sum(one.key.endswith("/c.0.0.0.0.0") for one in objects.walk()) == len(features.records())
