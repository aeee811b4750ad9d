"""Decoding processes: order, and that a file that crashes or hangs its decoder harms no other."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.preprocess import ImageInput, Pixels
from epalm.extract.workers import Decoded, DecodePool

TINY = ImageInput(Pixels((4, 4), "nearest", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def _pictures(folder: Path, count: int) -> list[Path]:
    from PIL import Image

    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (4, 4), (number, 0, 0)).save(paths[-1])
    return paths


def _value(decoded: Decoded) -> int:
    assert isinstance(decoded.result, np.ndarray)
    return round(float(decoded.result[0, 0, 0]) * 255)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(tmp_path: Path, workers: int) -> None:
    paths = _pictures(tmp_path, 20)
    paths[7] = tmp_path / "missing.png"
    with DecodePool(TINY, workers) as pool:
        results = list(pool.decode(paths, ahead=5))
    assert [done.path for done in results] == paths
    assert isinstance(results[7].result, MediaError)
    assert results[7].result.hint
    assert [_value(done) for number, done in enumerate(results) if number != 7] == [*range(7), *range(8, 20)]


def _process_of(pool: DecodePool) -> int:
    (worker,) = pool._running
    pid = worker._process.pid
    assert pid
    return pid


def test_a_decoder_that_dies_is_replaced(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 3)
    with DecodePool(TINY, 1) as pool:
        results = pool.decode(paths, ahead=1)
        assert _value(next(results)) == 0
        os.kill(_process_of(pool), signal.SIGSEGV)
        time.sleep(0.2)
        crashed = next(results).result
        assert isinstance(crashed, MediaError)
        assert "SIGSEGV" in crashed.message
        assert _value(next(results)) == 2


def test_a_decoder_that_hangs_is_replaced(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 3)
    with DecodePool(TINY, 1, timeout=1.0) as pool:
        results = pool.decode(paths, ahead=1)
        assert _value(next(results)) == 0
        os.kill(_process_of(pool), signal.SIGSTOP)
        hung = next(results).result
        assert isinstance(hung, MediaError)
        assert "longer than 1 s" in hung.message
        assert _value(next(results)) == 2


def test_leaving_early_ends_every_process(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 30)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), DecodePool(TINY, 2) as pool:
        next(pool.decode(paths, ahead=10))
        pids = [worker._process.pid for worker in pool._running]
        raise KeyboardInterrupt
    assert time.monotonic() - started < 20
    for pid in pids:
        assert pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@settings(max_examples=10, deadline=None)
@given(ahead=st.integers(0, 50), count=st.integers(0, 30))
def test_any_look_ahead_gives_the_same(tmp_path_factory: pytest.TempPathFactory, ahead: int, count: int) -> None:
    paths = _pictures(tmp_path_factory.mktemp("pictures"), count)
    with DecodePool(TINY, 0) as pool:
        assert [_value(done) for done in pool.decode(paths, ahead=ahead)] == list(range(count))
