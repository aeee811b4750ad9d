"""Killed at any moment, a scoring loses the batch in flight and nothing else; the scores are the same."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from epalm.errors import EpalmError
from epalm.evaluate.decoding import predict_samples, read_predictions
from epalm.samples import Modality, Prediction, Sample, Task
from tests import score_host
from tests.conftest import Epalm
from tests.trials import Trial

TIMES = 3  # as many questions and captions as the trial has
SHORT = ("--recipe", "playground", "--set", "optim.max_steps=2", "--set", "optim.batch_size=4")
ANSWERS = ("exact match",)


@pytest.fixture
def here(trial: Trial, tmp_path: Path) -> Path:
    """A trained run and some dozens of samples to score it on."""
    rows = trial.samples
    asked = [row for row in rows if row["split"] == "test"]
    trial.samples = rows + [{**row, "id": f"{row['id']}-{n}"} for n in range(1, TIMES) for row in asked]
    words = ("--from-cache", "-m", "image", "--data", "trial/world", "--cache", "trial/cache", "--runs", "runs")
    done = trial.epalm("train", *words, "--run", "a", *SHORT)
    assert done.code == 0, done.err
    return tmp_path


def _host(folder: Path, plan: list[dict[str, Any]], metrics: tuple[str, ...]) -> list[int]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, score_host.__file__, str(folder), json.dumps(plan), *metrics]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    results: list[int] = json.loads(done.stdout.splitlines()[-1])
    return results


def _files(folder: Path) -> dict[str, bytes]:
    """Predictions and scores, byte by byte; what a kill left of a draft is no part of them."""
    run = folder / "runs/a"
    paths = [run / "scores.json", *run.glob("predictions/*"), *run.glob("scores/*")]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if not path.name.startswith(".")}


def _batches(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "decoded").read_text().splitlines()]


def _copy(here: Path) -> Path:
    """The same, to be scored without a kill: {"in": "whole"}."""
    whole = here / "whole"
    whole.mkdir()
    for name in ("trial", "runs"):
        shutil.copytree(here / name, whole / name)
    return whole


def test_killed_while_decoding_saving_and_scoring(here: Path) -> None:
    whole = _copy(here)
    plan: list[dict[str, Any]] = [
        {"at": at, "batch": batch} for batch in (1, 2) for at in ("decoding", "saving", "saved")
    ]
    plan += [{"at": "scores", "write": write} for write in (1, 2, 3)]
    assert _host(here, [{"in": "whole"}, *plan, {}], ANSWERS) == [0, *[-9] * len(plan), 0]
    assert len(_batches(whole)) > 6 and len(_files(whole)) == 4
    assert _files(here) == _files(whole)
    decoded = Counter(name for batch in _batches(here) for name in batch)
    assert decoded.keys() == {name for batch in _batches(whole) for name in batch}
    in_flight = sum(entry["at"] in ("decoding", "saving") for entry in plan)
    assert sum(decoded.values()) - len(decoded) <= in_flight * score_host.BATCH


@pytest.mark.slow
def test_killed_at_random_moments(here: Path) -> None:
    metrics = ("exact match", "BLEU-4", "CIDEr")
    whole, rng, killed = _copy(here), random.Random(0), 0
    while killed < 20:  # a fast machine finishes early: begin again with what is left of the predictions
        plan = [{"after": rng.uniform(0.0, 0.6)} for _ in range(10)]
        kills = _host(here, plan, metrics).count(-9)
        assert kills, "no kill came early enough"
        killed += kills
        before = Counter(name for batch in _batches(here) for name in batch)
        assert sum(before.values()) - len(before) <= kills * score_host.BATCH
        for path in (here / "runs/a/predictions").glob("*.jsonl"):
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:20]))
        (here / "decoded").write_text("")
    assert _host(here, [{"in": "whole"}, {}], metrics) == [0, 0]
    assert _files(here) == _files(whole)


def test_a_torn_line_is_cut_and_decoded_again(tmp_path: Path) -> None:
    samples = [Sample(str(n), Modality.IMAGE, "m", Task.CAPTION, "test", references=("x",)) for n in range(3)]
    path = tmp_path / "p.jsonl"
    predict_samples(samples[:2], path, lambda missing: iter([[Prediction(s.id, "é") for s in missing]]))
    path.write_bytes(path.read_bytes()[:-4])
    asked: list[str] = []

    def decode(missing: Any) -> Any:
        asked.extend(sample.id for sample in missing)
        yield [Prediction(sample.id, "new") for sample in missing]

    found = predict_samples(samples, path, decode)
    assert asked == ["1", "2"]
    assert [one.text for one in found] == ["é", "new", "new"]
    assert read_predictions(path) == found
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_two_processes_do_not_decode_the_same(tmp_path: Path, epalm: Epalm) -> None:
    samples = [Sample("1", Modality.IMAGE, "m", Task.CAPTION, "test", references=("x",))]
    path = tmp_path / "p.jsonl"

    def decode(missing: Any) -> Any:
        with pytest.raises(EpalmError, match="another process is decoding"):
            predict_samples(missing, path, decode)
        yield [Prediction("1", "once")]

    assert predict_samples(samples, path, decode) == [Prediction("1", "once")]
