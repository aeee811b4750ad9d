"""Killed at any moment, a scoring loses the batch in flight and nothing else; the scores are the same."""

import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from epalm.errors import EpalmError
from epalm.evaluate.decoding.predictions import Asked, predict_samples, read_lines
from epalm.samples import Modality, Prediction, Sample, Task
from tests import score_host
from tests.scored_run import batches_of, copy_of, files_of, scorings, train_one
from tests.trials import Trial

ANSWERS = ("exact match",)


@pytest.fixture
def here(trial: Trial, tmp_path: Path) -> Path:
    """A trained run and some dozens of samples to score it on."""
    train_one(trial)
    return tmp_path


@pytest.mark.slow
def test_killed_while_decoding_saving_and_scoring(here: Path) -> None:
    whole, several = copy_of(here), copy_of(here, "several")
    plan: list[dict[str, Any]] = [
        {"at": at, "batch": batch} for batch in (1, 2) for at in ("decoding", "saving", "saved")
    ]
    shared = [{**entry, "processes": 2, "in": "several"} for entry in plan]
    plan += [{"at": "scores", "write": write} for write in (1, 2, 3)]
    stopped = {"processes": 2, "in": "several", "at": "decoding", "batch": 2, "signal": signal.SIGINT}
    worker = {"processes": 2, "in": "several", "at": "decoding", "batch": 2, "kill": "worker"}
    results = scorings(here, [{"in": "whole"}, *plan, {}, *shared, stopped, worker, {"in": "several"}], ANSWERS)
    assert results == [0, *[-9] * len(plan), 0, *[-9] * len(shared), 130, 0, 0]
    assert len(batches_of(whole)) > 6 and len(files_of(whole)) == 4
    for folder, entries in ((here, plan), (several, [*shared, stopped, worker])):
        assert files_of(folder) == files_of(whole)
        decoded = Counter(name for batch in batches_of(folder) for name in batch)
        assert decoded.keys() == {name for batch in batches_of(whole) for name in batch}
        in_flight = sum(_in_flight(entry, entry["at"] in ("decoding", "saving")) for entry in entries)
        assert sum(decoded.values()) - len(decoded) <= in_flight * score_host.BATCH


def _in_flight(entry: dict[str, Any], alone: int = 1) -> int:
    """Batches that a kill may lose: each worker has one at hand and one that waits."""
    processes: int = entry.get("processes", 1)
    return 2 * processes if processes > 1 else alone


@pytest.mark.slow
def test_killed_at_random_moments(here: Path) -> None:
    metrics = ("exact match", "BLEU-4", "CIDEr")
    whole, rng, killed, longest = copy_of(here), random.Random(0), 0, 0.6
    while killed < 20:  # a fast machine finishes early: begin again with what is left of the predictions
        plan = [{"after": rng.uniform(0.0, longest), "processes": rng.choice((1, 2))} for _ in range(10)]
        (here / "decoded").write_text("")
        kills = scorings(here, plan, metrics).count(-9)
        assert kills, "no kill came early enough"
        killed += kills
        before = Counter(name for batch in batches_of(here) for name in batch)
        in_flight = sum(_in_flight(entry) for entry in plan)
        assert sum(before.values()) - len(before) <= in_flight * score_host.BATCH
        for path in (here / "runs/a/predictions").glob("*.jsonl"):
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:20]))
        longest *= 1 if before else 2  # a slow machine has not come to decoding
    assert scorings(here, [{"in": "whole"}, {}], metrics) == [0, 0]
    assert files_of(here) == files_of(whole)


def _asked(names: str) -> list[Asked]:
    """Questions that nothing decides but their names."""
    samples = [Sample(name, Modality.IMAGE, "m", Task.CAPTION, "test", references=("x",)) for name in names]
    return [Asked(sample, f"key of {sample.id}") for sample in samples]


@pytest.mark.parametrize("cut", [1, 4])  # bytes; the first is the line's end alone
def test_a_torn_line_is_cut_and_decoded_again(cut: int, tmp_path: Path) -> None:
    asked, path = _asked("012"), tmp_path / "p.jsonl"
    predict_samples(asked[:2], path, lambda missing: ([Prediction(s.id, "\u2028é") for s in missing] for _ in "1"))
    path.write_bytes(path.read_bytes()[:-cut])
    decoded: list[str] = []

    def decode(missing: Any) -> Any:
        decoded.extend(sample.id for sample in missing)
        yield [Prediction(sample.id, "new") for sample in missing]

    texts = predict_samples(asked, path, decode)
    assert decoded == ["1", "2"]
    assert [one.text for one in texts] == ["\u2028é", "new", "new"]
    assert [Prediction(one["id"], one["text"]) for one in read_lines(path)] == texts
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_two_processes_do_not_decode_the_same(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"

    def decode(_: Any) -> Any:
        with pytest.raises(EpalmError, match="another process is decoding"):
            predict_samples(_asked("1"), path, decode)
        yield [Prediction("1", "once")]

    assert predict_samples(_asked("1"), path, decode) == [Prediction("1", "once")]
