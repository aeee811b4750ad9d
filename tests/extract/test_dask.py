"""Rows from a Dask cluster are those of one process, each once, whatever happens to the workers."""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from epalm.cache.store import Cache
from epalm.dask_engine import _run_here
from epalm.extract.dask_blocks import BlockEncoder, Done, Setting
from epalm.extract.encoders.registry import build_encoder
from epalm.extract.pipeline import ExtractSummary
from epalm.extract.request import ExtractRequest
from epalm.extract.spec_builder import feature_spec, library_versions
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.dask_workers import (
    BLOCK_ROWS,
    LAYERS,
    Workers,
    choice,
    dask_options,
    dataset,
    extract,
    pictures,
    rows,
    the_set,
)
from tests.extractions import plan_features


def _in_thread(work: Callable[[], ExtractSummary]) -> "_Running":
    running = _Running(work)
    running.start()
    return running


class _Running(threading.Thread):
    """An extraction beside the test."""

    def __init__(self, work: Callable[[], ExtractSummary]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.fault: BaseException | None = None
        self.summary: ExtractSummary | None = None

    def run(self) -> None:
        try:
            self.summary = self._work()
        except BaseException as error:
            self.fault = error

    def finish(self) -> ExtractSummary:
        self.join(120)
        if self.fault:
            raise self.fault
        assert self.summary, "it hangs"
        return self.summary


def _await_records(cache: Path, count: int, running: _Running) -> None:
    while len(list(cache.glob("sets/*/records/*.json"))) < count:
        assert running.is_alive(), running.fault or "it ended before"
        time.sleep(0.01)


def test_as_typed_the_rows_are_those_of_one_process(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "media", 26)
    (tmp_path / "media" / "zzz.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    words = [*("extract", "-m", "image", "--data", "media", "--weights", str(small_vit), "--layers", "0,2", "--json")]
    words += ["--tokens", "all", "--views", "2", "--block-rows", str(BLOCK_ROWS), "--batch-size", "12"]
    mine = epalm(*words, "--cache", "mine", "--workers", 0)
    # A cluster of its own, with decoding processes below its daemonic workers.
    theirs = epalm(*words, "--cache", "theirs", "--engine", "dask", "--dask-workers", 2, "--workers", 1)
    assert (mine.code, theirs.code) == (3, 3), mine.err + theirs.err
    summaries = [json.loads(done.out) for done in (mine, theirs)]
    for summary in summaries:
        assert (summary["encoded"], summary["bad"], summary["elsewhere"]) == (26, 1, 0)
    assert "dask: 2 workers" in theirs.err and "Traceback" not in theirs.err and "distributed" not in theirs.err
    for view in range(3):
        assert rows(tmp_path / "mine", view) == rows(tmp_path / "theirs", view)
    (bad,) = the_set(tmp_path / "theirs").ledger.entries()
    assert bad.media == "zzz.png"
    assert os.getpid() not in {record.written["pid"] for record in the_set(tmp_path / "theirs").records()}
    again = epalm(*words, "--cache", "theirs", "--engine", "dask")
    assert (json.loads(again.out)["hits"], json.loads(again.out)["encoded"]) == (26, 0)


def test_a_worker_killed_three_times_loses_and_doubles_nothing(
    tmp_path: Path, small_vit: Path, dask_workers: Workers
) -> None:
    media, cache = pictures(tmp_path / "media", 120), tmp_path / "theirs"
    options = dask_options(small_vit, dask_workers.address)
    running = _in_thread(lambda: extract(media, cache, small_vit, options))
    killed = set()
    for blocks in (2, 5, 8):
        _await_records(cache, blocks, running)
        killed.add(dask_workers.kill_one())
    summary = running.finish()
    assert len(killed) == 3
    assert summary.encoded + summary.elsewhere == 120
    assert summary.bad == 0
    extract(media, tmp_path / "mine", small_vit)
    assert rows(cache) == rows(tmp_path / "mine")


def test_a_worker_that_joins_late_is_used(tmp_path: Path, small_vit: Path, dask_workers: Workers) -> None:
    media, cache = pictures(tmp_path / "media", 120), tmp_path / "cache"
    dask_workers.scale(1)
    options = dask_options(small_vit, dask_workers.address)
    running = _in_thread(lambda: extract(media, cache, small_vit, options))
    _await_records(cache, 1, running)
    assert len({record.written["pid"] for record in the_set(cache).records()}) == 1
    dask_workers.scale(2)
    assert running.finish().encoded == 120
    assert {record.written["pid"] for record in the_set(cache).records()} == set(dask_workers.pids())


def test_without_a_worker_the_driver_waits_for_the_first(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr("epalm.dask_engine._QUIET", 0.0)
    monkeypatch.setattr("epalm.dask_engine.say", messages.append)
    media, cache = pictures(tmp_path / "media", 10), tmp_path / "cache"
    dask_workers.scale(0)
    running = _in_thread(lambda: extract(media, cache, small_vit, dask_options(small_vit, dask_workers.address)))
    while not messages:
        assert running.is_alive(), running.fault
        time.sleep(0.01)
    assert messages == [f"dask: waiting for a worker to come to {dask_workers.address}"]
    dask_workers.scale(2)
    assert running.finish().encoded == 10


def test_a_task_that_runs_twice_at_once_doubles_nothing(tmp_path: Path, small_vit: Path, dask_workers: Workers) -> None:
    media, where = pictures(tmp_path / "media", BLOCK_ROWS), tmp_path / "cache"
    (media / "bad.png").write_text("no picture")
    encoder = build_encoder(choice(small_vit), device="cpu")
    spec = feature_spec(encoder, LAYERS)
    cache = Cache(where)
    plan = plan_features(dataset(media), Modality.IMAGE, encoder, LAYERS, cache)
    features = cache.feature_set(spec, recorded={})
    options = dask_options(small_vit, dask_workers.address, block_rows=BLOCK_ROWS + 1, cache=str(where), device="cpu")
    setting = Setting(ExtractRequest(Modality.IMAGE, **options), features.name)
    order: tuple[Any, ...] = (BlockEncoder, setting, plan.pending, {}, False)
    twice = [dask_workers.client.submit(_run_here, *order, pure=False, workers=[one]) for one in _both(dask_workers)]
    done: list[Done] = dask_workers.client.gather(twice)
    tallies = [one.tally for one in done]
    assert sum(tally.encoded for tally in tallies) == BLOCK_ROWS
    assert sum(tally.encoded + tally.elsewhere for tally in tallies) == 2 * BLOCK_ROWS
    assert len(rows(where)) == BLOCK_ROWS
    assert [entry.media for entry in features.ledger.entries()] == ["bad.png"]


def test_a_block_records_the_libraries_of_the_worker_that_made_it(tmp_path: Path, small_vit: Path) -> None:
    media, cache = pictures(tmp_path / "media", 2), Cache(tmp_path / "cache")
    encoder = build_encoder(choice(small_vit), device="cpu")
    plan = plan_features(dataset(media), Modality.IMAGE, encoder, LAYERS, cache)
    features = cache.feature_set(feature_spec(encoder, LAYERS), recorded={"torch": "of the driver"})
    options = dask_options(small_vit, "tcp://nowhere", cache=cache.where, device="cpu", workers=0)
    with closing(BlockEncoder(Setting(ExtractRequest(Modality.IMAGE, **options), features.name), None)) as worker:
        worker.run(plan.pending, 1)
    assert [record.versions for record in features.records()] == [dict(sorted(library_versions().items()))]


def _both(workers: Workers) -> list[Any]:
    workers.scale(2)
    return list(workers.client.nthreads())


def test_ctrl_c_cancels_what_waits(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, cache = pictures(tmp_path / "media", 80), tmp_path / "cache"
    options = dask_options(small_vit, dask_workers.address)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("epalm.extract.pipeline.progress", lambda *_: nullcontext(interrupt))
        with pytest.raises(KeyboardInterrupt):
            extract(media, cache, small_vit, options)
    deadline = time.monotonic() + 30
    while dask_workers.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = extract(media, cache, small_vit, options)
    # What ran at that moment may still have been committed: one block each.
    assert BLOCK_ROWS <= again.hits + again.elsewhere <= 5 * BLOCK_ROWS
    assert again.hits + again.elsewhere + again.encoded == 80
    assert len(rows(cache)) == 80
