"""The whole chain on a cache in an object store, over a network that fails: the same as on a disk, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from epalm.cache.blocks import read_block
from epalm.cache.feature_set import FeatureSet
from epalm.cache.reader import FeatureReader
from epalm.cache.store import Cache
from epalm.errors import CacheError
from epalm.extract.pipeline import ExtractSummary
from epalm.samples import Modality
from tests import crash_host
from tests.conftest import Done, Epalm
from tests.dask_workers import pictures
from tests.extractions import Machine, extract_features
from tests.faulty_network import FaultyNetwork
from tests.feature_sets import contents, require_same, stored_twice
from tests.trials import latest_tensors

CHANCE = 0.05  # of a fault in each request
SHORT = ("--set", "optim.max_steps=4", "--set", "optim.batch_size=16", "--set", "eval.every_steps=2")


def _set(where: str | Path) -> FeatureSet:
    (features,) = Cache(where).sets()
    return features


def _ok(done: Done) -> dict[str, object]:
    assert done.code == 0, done.err
    summary: dict[str, object] = json.loads(done.out)
    return summary


def _extract(
    media: Path, where: str | Path, *, block_rows: int = crash_host.BLOCK_ROWS, seconds: float = 0.0
) -> ExtractSummary:
    """One extraction in this process, with an encoder that starts at once."""
    encoder = crash_host.Synthetic(seconds=seconds)
    machine = Machine(crash_host.BATCH, 0, block_rows)
    dataset = crash_host.dataset(media)
    return extract_features(dataset, Modality.IMAGE, encoder, crash_host.LAYERS, Cache(where), machine=machine)


@pytest.mark.slow
def test_extract_train_and_score_as_on_a_disk(
    s3_url: str,
    faulty_network: FaultyNetwork,
    worlds: dict[Modality, Path],
    epalm: Epalm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    faulty_network.fail(CHANCE, seed=5)
    kept, scores = [], []
    for name, cache in (("disk", "cache"), ("store", f"{s3_url}/cache")):
        how = ("--cache", cache, "--json")
        data = ("-m", "image", "--data", worlds[Modality.IMAGE], "--weights", "playground", "--workers", 0)
        assert _ok(epalm("extract", *data, "--block-rows", 4, "--views", 1, *how))["encoded"] == 38
        _ok(epalm("train", "--from-cache", "--recipe", "playground", *SHORT, "--run", name, *how))
        kept.append(latest_tensors(Path(f".epalm/runs/{name}")))
        scored = _ok(epalm("score", "--run", name, "--num-beams", 1, "--metrics", "exact match,cider", *how))
        scores.append(scored["tasks"])
        again = _ok(epalm("extract", *data, "--block-rows", 4, "--views", 1, *how))
        assert (again["hits"], again["encoded"]) == (38, 0)
        verified = epalm("cache", "verify", "--cache", cache)
        assert verified.code == 0, verified.err
    assert kept[0] == kept[1]
    assert scores[0] == scores[1]
    require_same_rows(_set("cache"), _set(f"{s3_url}/cache"))
    assert len(faulty_network.done) > 2, faulty_network.done


def require_same_rows(mine: FeatureSet, theirs: FeatureSet) -> None:
    assert contents(mine) == contents(theirs)
    assert {record.block for record in mine.records()} == {record.block for record in theirs.records()}
    assert stored_twice(theirs) == 0 and theirs.verify() == []
    assert mine.ledger.digests() == theirs.ledger.digests()


def test_killed_and_run_again(s3_url: str, small_vit: Path, tmp_path: Path, epalm: Epalm) -> None:
    media = pictures(tmp_path / "media", 42)
    (media / "bad.png").write_text("no picture")
    words = [*("extract", "-m", "image", "--data", str(media), "--weights", str(small_vit), "--layers", "all")]
    words += ["--workers", "0", "--batch-size", "3", "--block-rows", "3", "--json"]
    where, environment = f"{s3_url}/cache", dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "epalm", *words, "--cache", where]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    records = 0
    while records < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
        cache = Cache(where)
        records = sum(len(cache.objects.names(f"sets/{name}/records")) for name in cache.objects.names("sets"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    before = len(_set(where).rows())
    again = epalm(*words, "--cache", where)
    assert again.code == 3, again.err
    summary = json.loads(again.out)
    assert (summary["hits"], summary["encoded"]) == (before, 42 - before)
    assert epalm(*words, "--cache", tmp_path / "whole").code == 3
    require_same_rows(_set(tmp_path / "whole"), _set(where))


@pytest.mark.parametrize("bad", ["bad.png", "005-bad.png"])
def test_several_extractions_at_once(s3_url: str, faulty_network: FaultyNetwork, tmp_path: Path, bad: str) -> None:
    media = pictures(tmp_path / "media", 44)
    (media / bad).write_text("no picture")
    faulty_network.fail(CHANCE, seed=6)
    with ThreadPoolExecutor(3) as pool:
        every = list(pool.map(lambda _: _extract(media, f"{s3_url}/cache", seconds=0.01), range(3)))
    assert all(summary.encoded + summary.elsewhere + summary.hits == 44 for summary in every)
    _extract(media, tmp_path / "disk")
    features, whole = _set(f"{s3_url}/cache"), contents(_set(tmp_path / "disk"))
    assert contents(features) == whole
    assert [entry.media for entry in features.ledger.entries()] == [bad]
    for record in features.records():
        values = read_block(features.objects, record)[:, 0]
        assert [row.tobytes() for row in values] == [whole[digest, 0] for digest in record.rows]
    if bad == "bad.png":  # with a bad medium before them, their blocks begin elsewhere, and a store has no locks
        assert stored_twice(features) == 0 and sum(summary.encoded for summary in every) == 44


def test_from_a_disk_to_a_store_and_back(
    s3_url: str, faulty_network: FaultyNetwork, tmp_path: Path, epalm: Epalm
) -> None:
    media = pictures(tmp_path / "media", 50)
    (media / "bad.png").write_text("no picture")
    name = _extract(media, tmp_path / "here").set_name
    faulty_network.fail(CHANCE, seed=7)
    pushed = _ok(epalm("cache", "push", name, f"{s3_url}/shared", "--cache", tmp_path / "here", "--json"))
    assert pushed["blocks"] == 7
    require_same(_set(tmp_path / "here"), f"{s3_url}/shared")
    _ok(epalm("cache", "pull", f"{s3_url}/shared", name, "--cache", tmp_path / "there", "--json"))
    require_same(_set(tmp_path / "here"), tmp_path / "there")
    assert _blocks(tmp_path / "here") == _blocks(tmp_path / "there")


def _blocks(cache: Path) -> dict[str, bytes]:
    features = _set(cache)
    return {record.block: features.objects.read(record.chunk) for record in features.records()}


def test_a_url_of_a_folder_is_that_folder(tmp_path: Path, epalm: Epalm, small_vit: Path) -> None:
    media = pictures(tmp_path / "media", 5)
    words = ("extract", "-m", "image", "--data", media, "--weights", small_vit, "--layers", "all", "--workers", 0)
    assert _ok(epalm(*words, "--cache", f"file://{tmp_path}/cache", "--json"))["encoded"] == 5
    assert _ok(epalm(*words, "--cache", tmp_path / "cache", "--json"))["hits"] == 5


def test_what_does_not_fit_into_memory_is_mapped_from_copies(
    s3_url: str, faulty_network: FaultyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    _extract(pictures(tmp_path / "media", 30), f"{s3_url}/cache")
    faulty_network.fail(CHANCE, seed=8)
    features = _set(f"{s3_url}/cache")
    read = features.open()
    mapped = FeatureReader(features.objects, features.records(), features.spec, memory=0)
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(mapped.gather(order), read.gather(order))
    assert not any((tmp_path / "copies").iterdir())  # they have no names, so that no kill leaves any
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(CacheError, match="cannot be copied") as caught:
        features.open(mapped=True).gather(order)
    assert "TMPDIR" in str(caught.value.hint)


@pytest.mark.parametrize("grace", [3600.0, -1.0])
def test_requests_grow_with_blocks_and_not_with_media(
    s3_url: str, faulty_network: FaultyNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    monkeypatch.setattr("epalm.extract.pipeline.leftovers.__kwdefaults__", {"grace": grace, "walked": None})
    media = pictures(tmp_path / "media", 120)
    for number in range(60):
        (media / f"bad{number}.png").write_text(f"no picture {number}")
        (media / f"empty{number}.png").touch()
    counted = []
    for block_rows in (40, 40):
        faulty_network.seen.clear()
        summary = _extract(media, f"{s3_url}/cache", block_rows=block_rows)
        counted.append((summary.encoded, sum(faulty_network.seen.values())))
    (encoded, first), (hits, again) = counted
    assert (encoded, hits) == (120, 0)
    blocks = 3
    assert first < 10 * blocks + 60
    assert again < 2 * blocks + 60  # a record is asked for its size, then read


@pytest.mark.slow
def test_a_dask_cluster_writes_into_the_store(
    s3_url: str, faulty_network: FaultyNetwork, small_vit: Path, tmp_path: Path
) -> None:
    media = pictures(tmp_path / "media", 60)
    faulty_network.fail(CHANCE, seed=9)
    done = _typed(tmp_path, "--cache", f"{s3_url}/cache", "--engine", "dask", media=media, weights=small_vit)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "distributed" not in done.stderr
    faulty_network.fail(0.0)
    done = _typed(tmp_path, "--cache", "disk", media=media, weights=small_vit)
    assert done.returncode == 0, done.stderr
    require_same_rows(_set(tmp_path / "disk"), _set(f"{s3_url}/cache"))
    assert faulty_network.done


def _typed(folder: Path, *words: str, media: Path, weights: Path) -> "subprocess.CompletedProcess[str]":
    every: Sequence[str] = (
        *("extract", "-m", "image", "--data", str(media), "--weights", str(weights), "--layers", "all"),
        *("--batch-size", "4", "--block-rows", "8", "--workers", "1", *words),
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "epalm", *every]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
