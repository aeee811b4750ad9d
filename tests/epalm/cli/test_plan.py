"""`--plan` of extract, train and score: what would be done, in figures, and not a byte is written."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from epalm.cache.objects import durable
from epalm.cache.store import Cache
from epalm.errors import CacheError
from epalm.extract import pipeline
from epalm.extract.plan import ExtractionPlan, Pending
from epalm.fingerprint import digest_file
from epalm.media import MediaFile
from epalm.playground.generate import COUNTS
from epalm.samples import Modality
from tests.conftest import Done
from tests.small_disk import small_disk
from tests.trials import TEST, TRAIN, Trial

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=3", "--set", "optim.batch_size=4")
ROW = 3 * 24 * 2  # bytes: layers × width × float16


def _listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder, itself included: size, times of modification and of change."""
    states = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        states[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return states


@pytest.fixture
def plan(trial: Trial, tmp_path: Path) -> Callable[..., Done]:
    """A command with `--plan`, after which all is as it was: cache, index, runs, media, working folder."""

    def run(verb: str, *words: object) -> Done:
        places = ("--cache", trial.cache, *(() if verb == "extract" else ("--runs", tmp_path / "runs")))
        before = _listing(tmp_path)
        done = trial.epalm(verb, *places, *words, "--plan")
        assert _listing(tmp_path) == before
        assert "Traceback" not in done.err
        return done

    return run


def _extraction(trial: Trial, *words: object) -> tuple[object, ...]:
    from_trial = ("-m", "image", "--data", trial.world, "--weights", trial.weights)
    return "extract", *from_trial, "--workers", 0, "--layers", "last:3", "--views", 1, *words


def _picture(path: Path, red: int) -> None:
    Image.new("RGB", (24, 24), (red, 9, 9)).save(path)


def test_extract_counts_hits_new_stale_bad_and_unreadable(trial: Trial, plan: Callable[..., Done]) -> None:
    rows, media = trial.samples, trial.media
    base = {"modality": "image", "task": "caption", "split": "test"}
    for number, name in enumerate(("new.png", "equal.png", "missing.png", "bad.png", "../out.png")):
        rows.append({**base, "id": f"x{number}", "media": name, "references": ["x"]})
    trial.samples = rows
    (trial.world / "bad.png").write_text("no picture")
    trial.extract()  # the bad one is in the ledger from now on, the missing ones too
    _picture(trial.world / "new.png", 1)
    shutil.copy(trial.world / "new.png", trial.world / "equal.png")
    _picture(media[0], 2)  # a training medium: stale in both views
    done = plan(*_extraction(trial, "--json"))
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    counts = {
        key: figures[key] for key in ("media", "in_cache", "new", "stale", "known_bad", "unreadable", "to_encode")
    }
    assert counts == {
        "media": 10, "in_cache": TRAIN + TEST - 1, "new": 2, "stale": 1, "known_bad": 1, "unreadable": 2,
        "to_encode": 2,
    }  # fmt: skip
    assert figures["bytes"] == 3 * ROW  # two views of the stale one, one of the new ones, which are equal
    assert figures["augmented"] == TRAIN
    assert figures["free_bytes"] > 0 and figures["seconds"] > 0
    shown = plan(*_extraction(trial))
    assert shown.code == 0
    for words in ("in cache", "new", "stale", "bad", "unreadable", "to write", "free", "time, from a probe"):
        assert words in shown.out
    assert trial.extract() == (TRAIN + TEST - 1, 5)
    assert json.loads(plan(*_extraction(trial, "--json")).out)["to_encode"] == 0


def test_extract_tells_of_more_views_and_other_settings(trial: Trial, plan: Callable[..., Done]) -> None:
    more = json.loads(plan(*_extraction(trial, "--views", 3, "--json")).out)
    assert (more["in_cache"], more["to_encode"], more["bytes"]) == (TEST, TRAIN, 2 * TRAIN * ROW)
    fewer = json.loads(plan(*_extraction(trial, "--layers", "2", "--json")).out)
    assert (fewer["in_cache"], fewer["to_encode"], fewer["bytes"]) == (TRAIN + TEST, 0, 0)
    other = json.loads(plan(*_extraction(trial, "--dtype", "float32", "--json")).out)
    assert (other["in_cache"], other["bytes"]) == (0, 2 * (2 * TRAIN + TEST) * ROW)


def test_extract_plans_a_cache_that_is_not_there(trial: Trial, plan: Callable[..., Done], tmp_path: Path) -> None:
    trial.cache = tmp_path / "none/yet"
    figures = json.loads(plan(*_extraction(trial, "--json")).out)
    assert (figures["in_cache"], figures["new"], figures["free_bytes"] > 0) == (0, TRAIN + TEST, True)


def test_the_playground_is_drawn_elsewhere_for_a_plan(
    plan: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    for modality in Modality:
        monkeypatch.setitem(COUNTS, modality, (4, 1, 2))
    done = plan("extract", "-m", "image", "--workers", 0, "--json")
    assert json.loads(done.out)["to_encode"] == 7


def test_a_probe_ends_when_its_time_is_over(
    trial: Trial, plan: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_LONGEST", 0.0)
    figures = json.loads(plan(*_extraction(trial, "--dtype", "float32", "--json")).out)
    assert figures["to_encode"] == TRAIN + TEST and figures["seconds"] > 0


def _without_indexes(folder: Path) -> list[str]:
    """What lies below a folder, but for what only remembers digests and uses."""
    indexes = ("sqlite", "used.json", "lm-files.json")
    return [name for name in _listing(folder) if not any(one in name for one in indexes)]


@pytest.mark.parametrize("verb", ["extract", "train", "score"])
def test_what_cannot_fit_is_told_and_refused(
    verb: str, trial: Trial, plan: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the plan, which shows its figures all the same, and before the work."""
    words: tuple[object, ...] = _extraction(trial, "--dtype", "float32")[1:]
    if verb != "extract":
        words = ("--from-cache", "-m", "image", "--data", trial.world, *SHORT, "--run", "full")
    if verb == "score":
        assert trial.epalm("train", *words, "--cache", trial.cache, "--runs", tmp_path / "runs").code == 0
        words = ("--limit", 4)
    monkeypatch.setattr(durable, "_MARGIN", 1 << 60)
    planned = plan(verb, *words)
    assert planned.code == 1
    assert f"{verb} would do" in planned.out and "do not fit" in planned.err
    places = ("--cache", trial.cache, *(() if verb == "extract" else ("--runs", tmp_path / "runs")))
    before = _without_indexes(tmp_path)
    refused = trial.epalm(verb, *words, *places, *(() if verb != "train" else ("--no-canary",)))
    assert refused.code == 1 and "do not fit" in refused.err and "Traceback" not in refused.err
    assert [name for name in _without_indexes(tmp_path) if name not in before and "/uses" not in name] in ([], ["runs"])


def test_train_tells_of_media_steps_bytes_and_time(trial: Trial, plan: Callable[..., Done], tmp_path: Path) -> None:
    words = ("train", "--from-cache", "-m", "image", "--data", trial.world, *SHORT)
    done = plan(*words, "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["media"] == {
        "media": TRAIN, "in_cache": TRAIN, "sourceless": 0, "new": 0, "stale": 0, "bad": 0, "absent": 0
    }  # fmt: skip
    assert (figures["steps"], figures["missing_samples"]) == (3, 0)
    assert figures["bytes"] > 1000 and figures["free_bytes"] > 0 and figures["seconds"] > 0
    shown = plan(*words)
    for text in ("in cache", "new", "warmup steps", "to write", "free", "time, from a few steps"):
        assert text in shown.out
    often = ("--set", "checkpoint.every_steps=1")
    trained = trial.epalm(*words, *often, "--cache", trial.cache, "--runs", tmp_path / "runs", "--run", "a")
    assert trained.code == 0
    written = sum(path.stat().st_size for path in (tmp_path / "runs/a/checkpoints").rglob("*") if path.is_file())
    assert 0.4 * figures["bytes"] < written <= figures["bytes"]


def test_train_names_what_has_no_row_and_why(trial: Trial, plan: Callable[..., Done]) -> None:
    rows, media = trial.samples, trial.media
    for number, name in enumerate(("new.png", "missing.png", "bad.png")):
        split, references = "train", ["x"]
        rows.append({"id": f"x{number}", "modality": "image", "task": "caption", "media": name, "split": split,
                     "references": references})  # fmt: skip
    trial.samples = rows
    (trial.world / "bad.png").write_text("no picture")
    trial.extract()
    _picture(trial.world / "new.png", 1)
    _picture(media[0], 2)
    media[1].unlink()
    words = ("train", "--from-cache", "-m", "image", "--data", trial.world, *SHORT)
    done = plan(*words, "--json")
    assert json.loads(done.out)["media"] == {
        "media": 6, "in_cache": 2, "sourceless": 1, "new": 1, "stale": 1, "bad": 2, "absent": 0
    }  # fmt: skip
    assert done.code == 1 and "--allow-missing 4" in done.err  # as the training would end
    assert "has changed since it was extracted" in done.err and "not extracted yet" in done.err
    assert plan(*words, "--allow-missing", 4).code == 0


def test_live_training_is_planned_too(trial: Trial, plan: Callable[..., Done]) -> None:
    encoder = ("--set", f"encoder.weights='{trial.weights}'")
    figures = json.loads(plan("train", "-m", "image", "--data", trial.world, *SHORT, *encoder, "--json").out)
    assert figures["media"] is None and figures["steps"] == 3 and figures["seconds"] > 0


def test_score_tells_of_media_samples_bytes_and_time(trial: Trial, plan: Callable[..., Done], tmp_path: Path) -> None:
    places = ("--cache", trial.cache, "--runs", tmp_path / "runs")
    words = ("--from-cache", "-m", "image", "--data", trial.world, *SHORT)
    assert trial.epalm("train", *words, *places).code == 0
    assert trial.epalm("score", "--limit", 3, "--metrics", "exact match", *places).code == 0
    done = plan("score", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    samples = sum(row["split"] == "test" for row in trial.samples)
    assert (figures["samples"], figures["decoded_already"], figures["to_decode"]) == (samples, 3, samples - 3)
    assert figures["media"]["in_cache"] == figures["media"]["media"] == TEST
    assert figures["bytes"] > 0 and figures["free_bytes"] > 0 and figures["seconds"] > 0
    assert trial.epalm("score", "--metrics", "exact match", *places).code == 0
    (predictions,) = (tmp_path / "runs").glob("*/predictions/*.jsonl")
    assert figures["bytes"] == pytest.approx(predictions.stat().st_size * (samples - 3) / samples, rel=0.3)
    rest = json.loads(plan("score", "--json").out)
    assert (rest["to_decode"], rest["bytes"]) == (0, 0)
    assert "time, from some samples" in plan("score").out


def test_room_is_needed_for_what_is_written_alone(trial: Trial) -> None:
    (features,) = Cache(trial.cache).sets()
    file = MediaFile(trial.media[0])
    status = file.status()
    assert status
    pending = tuple(Pending(f"{number}", file, f"{number}", status, (0,)) for number in range(1000))
    free: list[int | None] = [None]
    cache: Any = SimpleNamespace(objects=SimpleNamespace(free_bytes=lambda: free[0]), where="here")
    nothing: Any = None
    plan = ExtractionPlan(
        nothing, nothing, cache, nothing, (0,), features.spec, features, 1000, pending=pending, bytes=1000 * ROW
    )
    pipeline.require_room(plan)
    free[0] = durable._MARGIN + int(1.05 * plan.bytes)
    pipeline.require_room(plan)
    free[0] = durable._MARGIN + plan.bytes
    with pytest.raises(CacheError, match="do not fit"):
        pipeline.require_room(plan)
    free[0] = 0
    pipeline.require_room(replace(plan, pending=()))


def test_a_medium_is_unchanged_while_its_bytes_are(trial: Trial) -> None:
    """Not when it looks the same: times and rights may change without the bytes, and the bytes without these."""
    path = trial.media[0]
    file = MediaFile(path)
    status = file.status()
    assert status
    digest = digest_file(path)
    assert file.unchanged(status, digest)
    path.chmod(0o600)
    os.utime(path, (5, 5))
    assert file.unchanged(status, digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.mtime, status.mtime))
    assert not file.unchanged(status, digest)
    path.unlink()
    assert not file.unchanged(status, digest)


def test_a_full_run_folder_is_one_message(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_MARGIN", -(1 << 60))
    words = ("--from-cache", "-m", "image", "--data", trial.world, *SHORT, "--cache", trial.cache)
    with small_disk(tmp_path / "disk", size=5 * 4096) as disk:
        done = trial.epalm("train", *words, "--runs", disk / "runs")
    assert done.code == 1 and done.err.count("error: ") == 1
    assert "No space left" in done.err and "Traceback" not in done.err
