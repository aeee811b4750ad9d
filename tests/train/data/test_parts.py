"""Text format, batches, learning rate, loss and checkpoints, each by itself."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.recipes.config import load_config
from epalm.samples import Modality, Sample, Task
from epalm.train.bridge.build import ONE_TOKEN, build_model
from epalm.train.data.batches import Batches, training_items
from epalm.train.data.text import Text, TextFormat, Texts, load_text_format, pad_right
from epalm.train.lm.load import load_lm
from epalm.train.lm.loss import IGNORED
from epalm.train.loop import Schedule
from epalm.train.runs.run_folder import RunFolder


@pytest.fixture(scope="module")
def text() -> TextFormat:
    return load_text_format("playground", load_lm("playground"))


def _qa(name: str, prompt: str, answers: dict[str, float]) -> Sample:
    return Sample(name, Modality.IMAGE, name, Task.QA, "train", prompt=prompt, answers=answers)


def _caption(name: str, *references: str) -> Sample:
    return Sample(name, Modality.IMAGE, name, Task.CAPTION, "train", references=references)


class Numbered:
    """Features that name their sample: every value is the sample's number."""

    layers, width, layout = 3, 2, ONE_TOKEN

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        return np.stack([np.arange(6, dtype=np.float32).reshape(3, 1, 2) + 10 * int(sample.id) for sample in samples])

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        return [""] * len(samples)

    def describe(self) -> dict[str, Any]:
        return {"source": "test"}


def _written(text: TextFormat, sample: Sample, target: str) -> Text:
    return Texts(text, [text.question(sample)], [[target]], [[1.0]]).text(0, 0)


def test_a_question_ends_in_one_question_mark_and_the_answer_token(text: TextFormat) -> None:
    asked = [_written(text, _qa("1", prompt, {}), "red") for prompt in ("what color?", "what color", " what color ? ")]
    assert len({(tuple(one.ids), one.target) for one in asked}) == 1
    ids = asked[0].ids.tolist()
    assert (ids[0],) == text.start and ids[-1] == text.eos
    assert text.tokenizer.decode(ids[1:-1]) == "what color?</a>red"
    assert text.tokenizer.decode(ids[asked[0].target : -1]) == "red"
    assert text.given(_qa("1", "what color", {})) == tuple(ids[: asked[0].target])


def test_a_caption_follows_the_first_token_alone(text: TextFormat) -> None:
    written = _written(text, _caption("1"), "a red circle")
    assert written.target == 1 == len(text.given(_caption("1")))
    assert text.decode(written.ids[1:].tolist()) == "a red circle"


@given(st.text(max_size=30))
def test_any_target_is_read_back(text: TextFormat, words: str) -> None:
    if not any(special in words for special in text.tokenizer.all_special_tokens):
        assert text.decode(_written(text, _caption("1"), words).ids[1:].tolist()) == words.strip()


def test_rows_are_padded_behind() -> None:
    ids, mask = pad_right([np.array([5]), np.array([6, 7, 8])], 1)
    assert ids.tolist() == [[5, 1, 1], [6, 7, 8]]
    assert mask is not None and mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert pad_right([np.array([5, 6]), np.array([7, 8])], 1)[1] is None


def _batches(text: TextFormat, count: int = 150, seed: int = 3, loss_on: Any = "all") -> Batches:
    samples = [_qa(str(n), "what color" + " is it" * (n % 4), {"red": 1.0, "blue": 0.5}) for n in range(count)]
    return Batches(training_items(samples), text, Numbered(), layers=2, batch_size=8, seed=seed, loss_on=loss_on)


def test_an_epoch_has_every_item_once_with_its_own_features(text: TextFormat) -> None:
    batches = _batches(text)
    seen: Counter[int] = Counter()
    for batch in batches.epoch(0):
        assert batch.features.shape == (len(batch.input_ids), 2, 1, 2)  # the last two of three layers
        seen.update((batch.features[:, 0, 0, 0] // 10).int().tolist())
    assert seen == Counter(range(150))
    assert len(list(batches.epoch(1))) == len(batches) == 19


def test_order_and_targets_depend_on_seed_and_epoch_alone(text: TextFormat) -> None:
    def ids(seed: int, epoch: int) -> list[Any]:
        return [batch.input_ids.tolist() for batch in _batches(text, seed=seed).epoch(epoch)]

    assert ids(3, 1) == ids(3, 1)
    assert ids(3, 0) != ids(3, 1)
    assert ids(3, 1) != ids(4, 1)


def test_batches_are_grouped_by_length(text: TextFormat) -> None:
    padded = sum(0 if b.attention_mask is None else int((b.attention_mask == 0).sum()) for b in _batches(text).epoch(0))
    assert padded <= 0.05 * sum(batch.input_ids.numel() for batch in _batches(text).epoch(0))


def test_answers_are_drawn_in_proportion_to_their_scores(text: TextFormat) -> None:
    red = _written(text, _qa("0", "", {}), "red").ids[-2]
    drawn = [red in row for epoch in range(20) for b in _batches(text).epoch(epoch) for row in b.input_ids.tolist()]
    share = sum(drawn) / len(drawn)
    assert abs(share - 2 / 3) < 4 * math.sqrt(2 / 9 / len(drawn))


@pytest.mark.parametrize("loss_on", ["all", "answer"])
def test_labels_are_the_text_behind_its_first_token_or_the_answer(text: TextFormat, loss_on: str) -> None:
    for batch in _batches(text, loss_on=loss_on).epoch(0):
        for row, (ids, labels) in enumerate(zip(batch.input_ids, batch.labels, strict=True)):
            end = len(ids) if batch.attention_mask is None else int(batch.attention_mask[row].sum())
            first = 1
            if loss_on == "answer":
                first = ids.tolist().index(text.tokenizer.convert_tokens_to_ids("</a>")) + 1
            assert (labels[:first] == IGNORED).all() and (labels[end:] == IGNORED).all()
            assert torch.equal(labels[first:end], ids[first:end])


def test_each_reference_of_a_caption_is_an_item_and_unanswered_questions_are_none() -> None:
    items = training_items([_caption("1", "a", "b", "c"), _qa("2", "q", {}), _qa("3", "q", {"x": 1.0})])
    assert [item.targets for item in items] == [("a",), ("b",), ("c",), ("x",)]


def test_the_rate_warms_up_by_step_and_falls_by_epoch() -> None:
    schedule = Schedule(load_config("vqa-v2").optim, 6_934)
    assert (schedule.steps, schedule.epochs) == (8 * 6_934, 8)
    assert schedule.rate(0) == pytest.approx(1e-5)
    assert schedule.rate(200) == pytest.approx(1.5e-5)
    assert schedule.rate(400) == pytest.approx(2e-5)
    assert schedule.rate(4 * 6_934) == schedule.rate(5 * 6_934 - 1) == pytest.approx((2e-5 + 1e-6) / 2)
    rates = [schedule.rate(max(epoch * 6_934, 400)) for epoch in range(9)]
    assert rates == sorted(rates, reverse=True)
    assert rates[8] == pytest.approx(1e-6)


def test_a_checkpoint_holds_exactly_the_trained_tensors(tmp_path: Path) -> None:
    names = {
        "epalm-lin": {"connector.weight", "connector.bias"},
        "epalm-pt": {"connector.weight", "connector.bias", "prompt.embedding"},
        "epalm": {"connector.weight", "connector.bias", "prompt.embedding", "prompt.inner.weight", "prompt.inner.bias"}
        | {"prompt.outer.weight", "prompt.outer.bias"},
    }
    for variant, expected in names.items():
        config = load_config("playground", [f"model.variant={variant}"]).resolved(8)
        model = build_model(config, load_lm("playground"), 96)
        run = RunFolder.create(tmp_path, variant)
        run.checkpoints.write(7, {"trainable": model.trainable_tensors()}, {"step": 7}, best=True)
        tensors, step = run.load()
        assert set(tensors) == expected and step == 7
        assert tensors["connector.weight"].shape == (2 if variant == "epalm" else 1, 128, 96)
        again = build_model(
            load_config("playground", [f"model.variant={variant}", "optim.seed=9"]).resolved(8), model.lm.plain, 96
        )
        again.load_trainable(tensors)
        assert all(torch.equal(value, again.trainable_tensors()[name]) for name, value in tensors.items())
        with pytest.raises(ValueError, match="another model"):
            again.load_trainable({"connector.weight": tensors["connector.weight"]})


def test_damaged_and_missing_checkpoints_are_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "x")
    with pytest.raises(UsageError, match="no best checkpoint yet"):
        run.load()
    run.checkpoints.write(1, {"trainable": {"a": torch.ones(3)}}, {"step": 1}, best=True)
    (run.path / "checkpoints/step-1/trainable.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="not what was written"):
        run.load()
    (run.path / "checkpoints/step-1/trainable.safetensors").unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        run.load()


def test_runs_are_found_by_name_folder_and_as_the_latest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        RunFolder.find(tmp_path)
    first, second = RunFolder.create(tmp_path, "x"), RunFolder.create(tmp_path, "x", name="mine")
    for age, run in ((1, first), (0, second)):
        run.begin(load_config("playground", []), {"modality": "image"})
        run.save_only({}, step=1)
        os.utime(run.path / "trainable.safetensors", (1.7e9 - age, 1.7e9 - age))
    assert RunFolder.find(tmp_path).path == second.path
    assert RunFolder.find(tmp_path, first.name).path == first.path
    assert RunFolder.find(Path("elsewhere"), str(first.path)).path == first.path
    for name in ("mine", "../x"):
        with pytest.raises(UsageError, match=r"mine|not the name"):
            RunFolder.create(tmp_path, "x", name=name)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run.path / "inputs.json").write_text("{"), "inputs.json cannot be read"),
        (lambda run: (run.path / "inputs.json").write_text("{}"), "modality"),
        (lambda run: (run.path / "config.toml").unlink(), "config.toml"),
        (lambda run: (run.path / "config.toml").write_text("= 1"), "is no TOML"),
        (lambda run: (run.path / "summary.json").write_text("["), "summary.json cannot be read"),
        (lambda run: shutil.rmtree(run.checkpoints.folder), "it has no checkpoint"),
    ],
)
def test_where_the_latest_run_cannot_be_used_the_newest_that_can_is(
    damage: Callable[[RunFolder], None], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for age, name in ((3, "oldest"), (2, "newest"), (1, "stopped"), (0, "last")):
        run = RunFolder.create(tmp_path, "", name=name)
        run.begin(load_config("playground", []), {"modality": "image", "key": name})
        run.checkpoints.write(1, {"trainable": {}}, {"step": 1}, best=True)
        if name != "stopped":
            run.end({})
            os.utime(run.path / "summary.json", (1.7e9 - age, 1.7e9 - age))
    damage(run)
    os.utime(run.path / "summary.json", (1.7e9, 1.7e9))
    assert RunFolder.find(tmp_path).name == "newest"
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.count("warning: ") == 1 and says in printed and str(run.path) in printed
    for name in ("oldest", "newest", "last"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    with pytest.raises(UsageError, match=r"there is no run in|cannot be used"):
        RunFolder.find(tmp_path)
