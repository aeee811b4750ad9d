"""A training on somebody's own few samples: it learns by the recipe for them, and says beforehand what cannot be."""

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from epalm.recipes.config import load_config
from epalm.recipes.settings import OptimSettings
from epalm.samples import Sample
from epalm.train.bridge.registry import bridges
from epalm.train.data.features import CachedFeatures
from epalm.train.loop import Schedule
from epalm.train.setup import dtype_warnings, length_warnings, padding_warnings, schedule_warnings
from tests.conftest import Done, Epalm
from tests.shared_files import shared_case
from tests.trials import Trial

README = (Path(__file__).parents[2] / "README.md").read_text()
COLORS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 70, 220), "yellow": (235, 215, 40)}
SHAPES = ("circle", "square", "triangle")


def _draw(path: Path, color: str, shape: str, at: int) -> None:
    picture = Image.new("RGB", (64, 64), (128, 128, 128))
    draw, end = ImageDraw.Draw(picture), at + 36
    if shape == "circle":
        draw.ellipse((at, at, end, end), fill=COLORS[color])
    elif shape == "square":
        draw.rectangle((at, at, end, end), fill=COLORS[color])
    else:
        draw.polygon([(at, end), (end, end), (at + 18, at)], fill=COLORS[color])
    picture.save(path)


def _write_samples(folder: Path) -> None:
    """24 pictures; the same two questions about each, with different answers."""
    rows: list[dict[str, Any]] = []
    for color in COLORS:
        for shape in SHAPES:
            for at in (8, 20):
                name = f"{color}-{shape}-{at}.png"
                _draw(folder / name, color, shape, at)
                row = {"modality": "image", "media": name, "task": "qa", "split": "train"}
                for question, answer in (("what color is it?", color), ("what shape is it?", shape)):
                    rows.append({"id": str(len(rows)), **row, "prompt": question, "answers": {answer: 1.0}})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


@pytest.mark.slow
def test_the_readmes_commands_learn_from_24_pictures(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_samples(tmp_path)
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "lm.name=playground" in block)
    commands = [line.split()[1:] for line in block.splitlines()]
    done = [_ok(epalm(*words)) for words in commands]
    assert [words[0] for words in commands] == ["extract", "train", "train", "score", "score"]
    assert "24 encoded, 0 bad" in done[0].err
    for trained in done[1:3]:
        assert "recipe: own" in trained.err and "48 training items, 200 epochs of 3 steps, 600 in all" in trained.err
        assert "the rate warms up for 60, up to 2.0e-04" in trained.err and "600 steps in " in trained.err
    exact = {}
    for run, scored in zip(("seeing", "blind"), done[3:], strict=True):
        assert "48/48" in scored.out  # the figure stands beside how many it is of
        scores = json.loads((tmp_path / f".epalm/runs/{run}/scores.json").read_text())
        exact[run] = scores["tasks"]["qa"]["metrics"]["exact match"]
    assert exact["seeing"] >= 0.9 and exact["blind"] <= 0.5


@given(st.integers(1, 20_000), st.integers(1, 128))
def test_the_schedule_fits_any_number_of_samples(items: int, batch: int) -> None:
    optim = load_config("own", [f"optim.batch_size={batch}"]).optim
    fitted = optim.fitted(items)
    each = math.ceil(items / batch)
    steps = fitted.epochs * each
    assert optim.min_steps and steps >= optim.min_steps and fitted.epochs >= optim.epochs
    assert fitted.epochs == optim.epochs or steps < optim.min_steps + each  # no epoch more than that takes
    assert 0 < fitted.warmup_steps < steps / 5
    schedule = Schedule(fitted, each)
    assert schedule.steps == steps
    rates = [schedule.rate(step) for step in {0, fitted.warmup_steps, steps - 1}]
    assert max(rates) > 0.9 * fitted.peak_lr and rates[0] == fitted.warmup_lr
    assert not [*schedule_warnings(schedule)]
    assert fitted.fitted(items) == fitted  # what the run keeps is a recipe that does the same


@given(st.integers(0, 900), st.integers(1, 900), st.integers(1, 40))
def test_a_rate_that_never_peaks_is_said_and_no_other(warmup: int, steps: int, each: int) -> None:
    schedule = Schedule(OptimSettings(warmup_steps=warmup, epochs=1000, max_steps=steps), each)
    assert (schedule.steps, schedule.epochs) == (steps, math.ceil(steps / each))
    warned = " ".join(schedule_warnings(schedule))
    peaks = warmup < steps
    assert ("never reaches its peak" in warned) == (not peaks)
    assert (f"{steps:,} steps are few" in warned) == (steps < 300)
    assert any(schedule.rate(step) == 2e-5 for step in range(min(steps, warmup + 1))) == (peaks and warmup < each)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=12))
def test_what_decoding_would_cut_is_counted(texts: list[tuple[bool, int, int]]) -> None:
    given_tokens = np.array([1 if caption else 1 + question for caption, question, _ in texts])
    whole = given_tokens + np.array([target for _, _, target in texts])
    asked = np.array([not caption for caption, *_ in texts])
    warned = [*length_warnings(asked, given_tokens, whole, 30, 2048)]
    cut = [
        (caption, target) for caption, question, target in texts if target > (29 if caption else max(29 - question, 5))
    ]
    for words, kind in (("captions", True), ("answers", False)):
        count, of = sum(one == kind for one, _ in cut), sum(caption == kind for caption, *_ in texts)
        assert any(f"{count} of {of} training {words}" in one for one in warned) == bool(count)
    if warned:  # what it says to set suffices
        limits = [int(limit) for limit in re.findall(r"decode.max_length=(\d+)", " ".join(warned))]
        assert not [*length_warnings(asked, given_tokens, whole, max(limits), 2048)]


def test_the_plan_and_the_start_say_what_falls_short(trial: Trial) -> None:
    rows = trial.samples
    (row, *_) = [row for row in rows if row["task"] == "caption" and row["split"] == "train"]
    row["references"] = ["a red sign that reads </s> " * 4, "a sign"]
    trial.samples = rows
    places = ("train", "--from-cache", "-m", "image", "--data", trial.world, "--cache", trial.cache, "--no-canary")
    words = (*places, "--set", "lm.name=playground", "--set", "model.tokens=2", "--recipe", "coco-caption")
    planned, trained = _ok(trial.epalm(*words, "--plan", "--json")), _ok(trial.epalm(*words))
    expected = json.loads(planned.out)["warnings"]
    assert len(expected) == 3
    for message, part in zip(expected, ("never reaches its peak", "steps are few", "1 of "), strict=True):
        assert part in message and f"warning: {message}" in planned.err and f"warning: {message}" in trained.err
    assert "steps are few" not in _ok(trial.epalm(*words)).err  # done already


def test_the_given_texts_are_counted(epalm: Epalm, tmp_path: Path) -> None:
    lines = (shared_case("long-captions") / "longcap.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        if not (tmp_path / row["media"]).exists():
            Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / row["media"])
    (tmp_path / "samples.jsonl").write_text("\n".join(lines))
    words = ("train", "-m", "image", "--data", tmp_path / "samples.jsonl", "--cache", tmp_path / "cache", "--plan")
    planned = _ok(epalm(*words, "--set", "lm.name=playground", "--set", "encoder.weights=playground"))
    assert "24 of 24 training captions are longer than decode.max_length, 30 tokens" in planned.err
    assert "never reaches" not in planned.err and "are few" not in planned.err


def test_a_dtype_that_the_cpu_only_emulates_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, slow in (("AVX2", True), ("AVX512", False), ("DEFAULT", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda known=capability: known)
        for dtype, device in itertools.product(("float32", "bfloat16", "float16"), ("cpu", "cuda")):
            warned = " ".join(dtype_warnings(dtype, torch.device(device)))
            assert ("set lm.dtype=float32" in warned) == (slow and dtype != "float32" and device == "cpu")


class Rows(CachedFeatures):
    """These, whatever the samples."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows_given = rows

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        return self._rows_given


@pytest.mark.parametrize("bridge", sorted(bridges()))
def test_padding_that_would_stand_in_front_is_told(bridge: str) -> None:
    config = load_config("own", [f"model.bridge={bridge}"])
    rows = np.ones((2, 1, 8, 3), np.float16)
    samples: Any = [None, None]
    assert not [*padding_warnings(config, Rows(rows), samples)]
    rows[1, :, 4:] = 0
    told = " ".join(padding_warnings(config, Rows(rows), samples))
    in_front = bridge in ("limber", "mlp", "avgpool", "linear-pool", "random-tokens")
    assert ("25% of the first 2 samples' tokens are padding" in told) == in_front
