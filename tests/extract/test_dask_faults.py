"""What is wrong with a cluster or one of its machines is one message that names it; media are not blamed for it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dask
import pytest

from epalm import __version__
from epalm.errors import EpalmError, UsageError
from epalm.extract.plan import ExtractionPlan
from epalm.media import MediaFile
from tests.conftest import Epalm, save_small_vit
from tests.dask_workers import (
    Workers,
    dask_options,
    extract,
    pictures,
    rows,
    scheduler_process,
    the_set,
    worker_process,
)

CLUSTER, ENGINE = "epalm.dask_engine", "epalm.extract.dask_blocks"


def _typed(run: Epalm, tmp_path: Path, weights: Path, *words: object) -> Any:
    pictures(tmp_path / "media", 2)
    return run(
        *("extract", "-m", "image", "--data", tmp_path / "media", "--weights", weights, "--layers", "0,2"),
        *("--cache", tmp_path / "cache", "--workers", 0, "--engine", "dask", *words),
    )


def test_no_scheduler(tmp_path: Path, small_vit: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CLUSTER}._START_TIMEOUT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        done = _typed(epalm, tmp_path, small_vit, "--scheduler", address)
        assert done.code == 1
        assert f"error: no scheduler answers at {address}" in done.err
        assert "dask worker" in done.err and "Traceback" not in done.err


@pytest.mark.slow
def test_tls_lets_in_who_has_a_certificate(tmp_path: Path, small_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cluster")
    subprocess.run(["openssl", *words, "-keyout", key, "-out", cert], check=True, capture_output=True)
    variable = "DASK_DISTRIBUTED__COMM__TLS__"
    monkeypatch.setenv(f"{variable}CA_FILE", str(cert))
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        monkeypatch.setenv(f"{variable}{role}__KEY", str(key))
        monkeypatch.setenv(f"{variable}{role}__CERT", str(cert))
    media, cache = pictures(tmp_path / "media", 3), tmp_path / "cache"
    with scheduler_process(tmp_path, protocol="tls") as (address, _), worker_process(address):
        assert address.startswith("tls://")
        monkeypatch.setattr(f"{CLUSTER}._START_TIMEOUT", 2.0)
        for stranger in (address, address.replace("tls", "tcp")):  # this process has not read the variables yet
            with pytest.raises(UsageError, match="no scheduler answers at"):
                extract(media, cache, small_vit, dask_options(small_vit, stranger))
        monkeypatch.setattr(f"{CLUSTER}._START_TIMEOUT", 30.0)
        mine = {"ca-file": str(cert), "client.key": str(key), "client.cert": str(cert)}
        with dask.config.set({f"distributed.comm.tls.{name}": file for name, file in mine.items()}):
            assert extract(media, cache, small_vit, dask_options(small_vit, address)).encoded == 3
    assert len(rows(cache)) == 3


def test_no_worker_comes(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CLUSTER}._WORKER_TIMEOUT", 0.5)
    media, cache = pictures(tmp_path / "media", 3), tmp_path / "cache"
    dask_workers.scale(0)
    with pytest.raises(UsageError, match="no worker has come") as caught:
        extract(media, cache, small_vit, dask_options(small_vit, dask_workers.address))
    dask_workers.scale(2)
    assert f"dask worker {dask_workers.address}" in str(caught.value.hint)


def test_the_scheduler_goes(tmp_path: Path, small_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(f"{CLUSTER}._QUIET", 0.0)
    media, cache = pictures(tmp_path / "media", 3), tmp_path / "cache"
    with scheduler_process(tmp_path) as (address, process):

        def end(message: str) -> None:
            messages.append(message)
            process.kill()

        monkeypatch.setattr(f"{CLUSTER}.say", end)  # it waits for a worker then
        with pytest.raises(EpalmError, match=f"^the scheduler at {address} is gone") as caught:
            extract(media, cache, small_vit, dask_options(small_vit, address))
    assert messages
    assert "the same command goes on" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ("Name: epalm", f"has no epalm, this machine {__version__}"),
        ("Name: epalm\nVersion: 0.0.9", f"has epalm 0.0.9, this machine {__version__}"),
    ],
)
def test_other_software_on_a_machine(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, metadata: str, fault: str
) -> None:
    media, cache = pictures(tmp_path / "media", 3), tmp_path / "cache"
    installed = tmp_path / "software" / "epalm-0.0.9.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(metadata)
    dask_workers.scale(2)
    with worker_process(dask_workers.address, tmp_path / "software"):
        dask_workers.wait_for(3)
        with pytest.raises(UsageError, match=f"^the worker on 127.0.0.1 {fault}"):
            extract(media, cache, small_vit, dask_options(small_vit, dask_workers.address))
    dask_workers.wait_for(2)
    with (
        scheduler_process(tmp_path, tmp_path / "software") as (address, _),
        worker_process(address),
        pytest.raises(UsageError, match=f"^the scheduler {fault}"),
    ):
        extract(media, cache, small_vit, dask_options(small_vit, address))


def test_other_weights_on_a_worker(tmp_path: Path, dask_workers: Workers) -> None:
    media, cache, weights = pictures(tmp_path / "media", 20), tmp_path / "cache", tmp_path / "vit"
    save_small_vit(weights, depth=3)
    data = bytearray((weights / "model.safetensors").read_bytes())

    def change(_plan: ExtractionPlan) -> None:
        data[-1] ^= 1
        (weights / "model.safetensors").write_bytes(data)

    options = dask_options(weights, dask_workers.address)
    with pytest.raises(UsageError, match=f"^on {os.uname().nodename}: the encoder would give other numbers") as caught:
        extract(media, cache, weights, options, after_planning=change)
    assert "same weights" in str(caught.value.hint)
    assert not the_set(cache).records() and not the_set(cache).ledger.entries()


def test_no_weights_on_a_worker(tmp_path: Path, dask_workers: Workers) -> None:
    media, cache, weights = pictures(tmp_path / "media", 3), tmp_path / "cache", tmp_path / "vit"
    save_small_vit(weights, depth=3)
    options = dask_options(weights, dask_workers.address)
    with pytest.raises(UsageError, match=f"^on {os.uname().nodename}: "):
        extract(media, cache, weights, options, after_planning=lambda _: shutil.rmtree(weights))


def test_media_that_a_worker_does_not_reach(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, cache = pictures(tmp_path / "media", 20), tmp_path / "cache"
    # The driver believes that they are as planned; there is one disk here.
    monkeypatch.setattr(MediaFile, "unchanged", lambda *_: True)
    options = dask_options(small_vit, dask_workers.address)
    with pytest.raises(UsageError, match=f"8 of 8 media are not on {os.uname().nodename} .*png") as caught:
        extract(media, cache, small_vit, options, after_planning=lambda _: shutil.rmtree(media))
    assert "under the same path" in str(caught.value.hint)
    assert not the_set(cache).ledger.entries()


def test_media_that_change_after_they_were_planned(tmp_path: Path, small_vit: Path, dask_workers: Workers) -> None:
    media, cache = pictures(tmp_path / "media", 20), tmp_path / "cache"

    def change(_plan: ExtractionPlan) -> None:
        (media / "003.png").unlink()
        (media / "004.png").write_bytes((media / "005.png").read_bytes())
        os.utime(media / "006.png", (1, 1))  # a copy of the same bytes, as another machine may have one

    options = dask_options(small_vit, dask_workers.address)
    summary = extract(media, cache, small_vit, options, after_planning=change)
    assert (summary.encoded, summary.bad) == (18, 2)
    entries = the_set(cache).ledger.entries()
    assert {(entry.media, entry.digest) for entry in entries} == {("003.png", None), ("004.png", None)}
    assert len(rows(cache)) == 18


def test_a_cache_that_a_worker_does_not_reach(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{ENGINE}._SEEN_TIMEOUT", 0.2)
    media, cache = pictures(tmp_path / "media", 20), tmp_path / "cache"
    options = dask_options(small_vit, dask_workers.address)
    with pytest.raises(
        UsageError, match=f"^on {os.uname().nodename}: {tmp_path}/nowhere does not hold the feature set"
    ):
        extract(media, cache, small_vit, {**options, "cache": str(tmp_path / "nowhere")})
    shutil.copytree(cache, tmp_path / "other")  # a folder of the same name on the worker's own disk
    with pytest.raises(UsageError, match="has committed is not in") as caught:
        extract(media, cache, small_vit, {**options, "cache": str(tmp_path / "other")})
    assert "all machines reach" in str(caught.value.hint)
    assert not the_set(cache).ledger.entries()


def test_media_that_kill_their_workers(
    tmp_path: Path, small_vit: Path, dask_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epalm.dask_engine._MOST_TRIES", 2)
    media, cache = pictures(tmp_path / "media", 20, prefix="zz"), tmp_path / "cache"
    pictures(media, 1, prefix="deadly")
    with pytest.raises(EpalmError, match=r"all workers that encoded the block from deadly000.png to zz006.png died"):
        extract(media, cache, small_vit, dask_options(small_vit, dask_workers.address))
    (media / "deadly000.png").unlink()
    summary = extract(media, cache, small_vit, dask_options(small_vit, dask_workers.address))
    # A worker of the first extraction may still have been storing its block.
    assert summary.hits + summary.encoded + summary.elsewhere == 20
    assert len(rows(cache)) == 20
