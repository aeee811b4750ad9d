"""Folders and files whose names are not UTF-8, and folders of links, go through all three stages."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Epalm

ODD = os.fsdecode(b"caf\xe9")  # Latin-1
TINY = ("--recipe", "playground", "--set", "optim.max_steps=1")


def _world(folder: Path, name: str) -> Path:
    """Four training and two test pictures with captions, one a line, and two kinds of data files of questions."""
    rows = []
    for number in range(6):
        split = "train" if number < 4 else "test"
        path = folder / split / f"{name}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path.open("wb"), "PNG")
        path.with_suffix(".txt").write_text("a cat on a mat")
        media = f"{split}/{path.name}"
        row = {"id": media, "modality": "image", "media": media, "task": "qa", "split": split}
        rows.append({**row, "prompt": "what is it?", "answers": {"cat": 1.0}})
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def _three_stages(epalm: Epalm, data: str, *words: str) -> None:
    extracted = epalm("extract", "-m", "image", "--weights", "playground", "--workers", "1", "--data", data, *words)
    assert extracted.code == 0, extracted.err
    trained = epalm("train", "--from-cache", *TINY)
    assert trained.code == 0 and "media are not here" not in trained.err, trained.err
    scored = epalm("score", "--json", "--metrics", "cider")
    assert scored.code == 0, scored.err
    report = epalm("report", "--json")
    assert report.code == 0, report.err
    assert json.loads(report.out)["media_missing"] == 0 and json.loads(report.out)["shown"] == 2


@pytest.mark.parametrize("form", [pytest.param("folder", marks=pytest.mark.slow), "file"])
def test_names_that_are_not_utf_8(tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        _world(tmp_path / ODD, ODD)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    _three_stages(epalm, ODD if form == "folder" else f"{ODD}/{ODD}.jsonl")
    answered = epalm("predict", f"{ODD}/test/{ODD}4.png", "what is it?")
    assert answered.code == 0, answered.err
    (predictions,) = Path(".epalm/runs").glob("*/predictions/*.jsonl")
    given = epalm(
        "score", "--predictions", predictions, "--data", ODD if form == "folder" else f"{ODD}/{ODD}.jsonl", "--json"
    )
    assert given.code == 0, given.err


def test_links_are_followed_in_every_stage(tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = _world(tmp_path / "store", "p")
    (tmp_path / "photos").mkdir()
    for split in ("train", "test"):
        (tmp_path / "photos" / split).symlink_to(world / split)
    _three_stages(epalm, "photos", "--follow-links")
    live = epalm(
        "train", "-m", "image", "--data", "photos", "--follow-links", *TINY, "--set", "encoder.weights=playground"
    )
    assert live.code == 0, live.err
    refused = epalm("extract", "-m", "image", "--weights", "playground", "--data", "photos")
    assert refused.code == 1 and "2 linked" in refused.err and "--follow-links" in refused.err
