"""How a step is divided among processes and parts, batches put together ahead, and texts tokenised once."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import EpalmError, MediaError
from epalm.recipes.config import load_config
from epalm.recipes.settings import OptimSettings
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch, Batches, in_order, training_items
from epalm.train.data.text import TextFormat, Texts, load_text_format
from epalm.train.lm.load import load_lm
from epalm.train.lm.processes import Processes
from epalm.train.loop import take_step
from tests import train_host


@pytest.fixture(scope="module")
def text() -> TextFormat:
    return load_text_format("playground", load_lm("playground"))


def _batches(text: TextFormat, count: int, *, size: int = 4, **options: Any) -> Batches:
    items = training_items(train_host.samples("train", count))
    return Batches(items, text, train_host.Numbered(), layers=2, batch_size=size, seed=3, **options)


def _numbers(batch: Batch) -> list[int]:
    return [int(value) for value in batch.features[: batch.own_samples, 0, 0, 0]]


@given(count=st.integers(1, 40), processes=st.integers(1, 5), size=st.integers(1, 9))
def test_the_processes_shares_are_the_batch(text: TextFormat, count: int, processes: int, size: int) -> None:
    whole = list(_batches(text, count, size=size).epoch(0, augmented=False))
    shares = [
        list(_batches(text, count, size=size, processes=Processes(rank, processes)).epoch(0, augmented=False))
        for rank in range(processes)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert Counter(_numbers(batch)) == sum((Counter(_numbers(part)) for part in parts), Counter())
        assert {part.all_samples for part in parts} == {batch.own_samples} == {batch.all_samples}
        assert len({len(part.labels) for part in parts}) == 1  # all have the same steps to do


@given(st.integers(1, 9), st.integers(1, 12), st.data())
def test_parts_are_the_rows_and_count_what_counts(rows: int, parts: int, data: st.DataObject) -> None:
    counted = data.draw(st.integers(0, rows))
    ids = torch.arange(rows)[:, None]
    batch = Batch(ids[..., None].float(), ids, None, ids, counted, 20)
    cut = list(batch.parts(parts))
    assert len(cut) == min(parts, rows) and all(len(part.labels) for part in cut)
    assert torch.equal(torch.cat([part.labels for part in cut]), ids)
    assert [n for part in cut for n in part.labels[: part.own_samples, 0].tolist()] == list(range(counted))
    assert {part.all_samples for part in cut} == {20}


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_threads_gives_the_same_batches(text: TextFormat, workers: int) -> None:
    for first in (0, 3):
        alone = list(_batches(text, 30).epoch(2, first=first))
        ahead = list(_batches(text, 30, workers=workers).epoch(2, first=first))
        assert len(alone) == len(ahead) == 8 - first
        for ours, theirs in zip(ahead, alone, strict=True):
            assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.features, theirs.features)


def test_work_ahead_keeps_its_order_its_bounds_and_its_faults() -> None:
    started: list[int] = []

    def work(number: int) -> Callable[[], int]:
        def do() -> int:
            started.append(number)
            if number == 5:
                raise MediaError("the fifth")
            return number

        return do

    def tasks() -> Iterator[Callable[[], int]]:
        yield from (work(number) for number in range(1000))

    before = set(threading.enumerate())
    with closing(in_order(tasks(), 2)) as results:
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(started) <= 5 + 2 * 2 + 1
        with pytest.raises(MediaError, match="the fifth"):
            next(results)
    assert set(threading.enumerate()) <= before
    with closing(in_order(tasks(), 2)) as results:
        next(results)
    assert set(threading.enumerate()) <= before  # let go in the middle, as by Ctrl-C


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=1, max_size=4), min_size=1, max_size=8), st.integers(0, 99))
def test_targets_are_drawn_by_their_shares(text: TextFormat, weights: list[list[float]], seed: int) -> None:
    shares = [list(np.cumsum(row) / sum(row)) for row in weights]
    targets = [[f"{item} {place}" for place in range(len(row))] for item, row in enumerate(weights)]
    texts = Texts(text, ["q?</a>"] * len(weights), targets, shares)
    chances = np.random.default_rng(seed).random(len(weights))
    chances[0] = np.nextafter(1, 0)  # the last target, although 1 is nobody's
    drawn = texts.draw(chances)
    flat = [target for row in targets for target in row]
    for item, (row, chance) in enumerate(zip(shares, chances, strict=True)):
        place = min(int(np.searchsorted(row, chance, side="right")), len(row) - 1)
        assert flat[drawn[item]] == targets[item][place]
        written = texts.text(item, drawn[item])
        assert texts.lengths(drawn)[item] == len(written.ids)
        assert text.decode(written.ids[written.target :].tolist()) == targets[item][place]


def _stepping() -> tuple[EpalmModel, torch.optim.Optimizer]:
    """A model, and a plain descent whose steps are the gradients."""
    model = build_model(load_config("playground").resolved(8), load_lm("playground"), 3).train()
    return model, torch.optim.SGD(model.trainable_tensors().values(), lr=1.0)


def test_a_step_in_parts_is_the_step(text: TextFormat) -> None:
    (batch,) = _batches(text, 5, size=5).epoch(0)
    results = []
    for parts in (1, 3, 5):
        model, optimiser = _stepping()
        loss, stop = take_step(model, optimiser, batch, OptimSettings(micro_batches=parts), stop=lambda: True)
        assert stop
        results.append([loss, *(tensor.detach().clone() for tensor in model.trainable_tensors().values())])
    for result in results[1:]:
        for ours, whole in zip(map(torch.as_tensor, result), map(torch.as_tensor, results[0]), strict=True):
            # Of a sum of steps rounding is relative to the largest of its terms.
            torch.testing.assert_close(ours, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_lack_of_memory_says_the_batch_and_what_to_change(
    text: TextFormat, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = _batches(text, 5, size=5).epoch(0)
    model, optimiser = _stepping()

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(model.lm, "losses", fail)
    with pytest.raises(EpalmError) as caught:
        take_step(model, optimiser, batch, OptimSettings(micro_batches=2))
    assert f"5 samples × {batch.labels.shape[1]} tokens in 2 parts" in caught.value.message
    assert "optim.micro_batches=4" in (caught.value.hint or "")


def test_another_fault_of_a_step_is_a_bug(text: TextFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    (batch,) = _batches(text, 5, size=5).epoch(0)
    model, optimiser = _stepping()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model.lm, "losses", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        take_step(model, optimiser, batch, OptimSettings())
