"""The trunk's rows: training from them is training without them, they are never stale, and a kill costs a block."""

import json
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.config import load_config
from epalm.datasets import load_dataset
from epalm.errors import CacheError, EpalmError, UsageError
from epalm.samples import Modality, Sample
from epalm.train import trunk
from epalm.train.prepare import Prepared, prepare, validation_batches
from epalm.train.step import losses_of, make_optimiser, take_step
from epalm.train.trunk import TrunkPass, TrunkRows, beginnings, require_trunk, trunk_set, trunk_spec
from epalm.train.trunk_use import drawn_batches, lacking_rows, use_trunk
from tests.conftest import Epalm
from tests.trials import Trial

LIN = ("model.variant=epalm-lin", "model.start=4", "model.end=8", "optim.batch_size=8", "eval.val_samples=6")
STEPS = 20


class Drawn:
    """Features that depend on the sample alone."""

    layers, width = 2, 96

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        rng = [np.random.default_rng(sum(map(ord, sample.id))) for sample in samples]
        return np.stack([one.standard_normal((2, 96), np.float32) for one in rng])

    def describe(self) -> dict[str, Any]:
        return {"source": "test"}


def _ready(worlds: dict[Modality, Path], *overrides: str) -> Prepared:
    dataset = load_dataset(str(worlds[Modality.IMAGE]), Modality.IMAGE)
    config = load_config("playground", [*LIN, f"optim.max_steps={STEPS}", *overrides])
    return prepare(config, dataset, Drawn(), dataset.split("train"), "cpu", workers=2)  # which look ahead too far


def _train(ready: Prepared) -> list[float]:
    optimiser = make_optimiser(ready.model.train(), ready.plan)
    losses: list[float] = []
    while len(losses) < STEPS:
        with closing(ready.batches.epoch(len(losses) // len(ready.batches))) as batches:
            for batch in islice(batches, STEPS - len(losses)):
                losses.append(float(take_step(ready.model, optimiser, batch, loss_scale=0.1).loss))
    return losses


def _cache_of(ready: Prepared, cache: Cache) -> FeatureSet:
    return trunk_set(cache, trunk_spec(ready.model.lm, ready.lm))


def _values(features: FeatureSet) -> dict[str, bytes]:
    reader = features.open()
    rows = reader.gather(np.arange(len(reader.digests)))
    return {digest: row.tobytes() for digest, row in zip(reader.digests, rows, strict=True)}


def test_training_from_the_trunk_is_training_without_it(worlds: dict[Modality, Path], tmp_path: Path) -> None:
    plain, cached, cache = _ready(worlds), _ready(worlds), Cache(tmp_path / "cache")
    dataset = load_dataset(str(worlds[Modality.IMAGE]), Modality.IMAGE)
    fixed = validation_batches(cached.config, dataset.split("val"), cached.text, Drawn())
    drawn = drawn_batches(cached, fixed)
    before = lacking_rows(cache, cached, drawn)
    use_trunk(cache, cached, drawn, tmp_path / "run")
    assert before.bytes == _cache_of(cached, cache).stored_bytes() > 0 and before.tokens > 0
    assert lacking_rows(cache, cached, drawn).bytes == 0
    blocks: list[int] = []
    for number, layer in enumerate(cached.model.lm.model.decoder.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: blocks.append(number))
    np.testing.assert_allclose(_train(cached), _train(plain), rtol=1e-5)
    assert set(blocks) == set(range(4, 8))
    for name, tensor in plain.model.trainable_tensors().items():
        torch.testing.assert_close(tensor, cached.model.trainable_tensors()[name], atol=1e-5, rtol=1e-4)
    assert fixed is not None
    batch = next(fixed.epoch(0, augmented=False))
    assert batch.trunk is not None
    both = [losses_of(ready.model, batch).loss for ready in (cached, plain)]
    torch.testing.assert_close(*both, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_are_the_hidden_states_bit_by_bit(dtype: str, worlds: dict[Modality, Path], tmp_path: Path) -> None:
    ready = _ready(worlds, f"lm.dtype={dtype}")
    features = _cache_of(ready, Cache(tmp_path))
    texts = ready.batches.texts(2)
    work = TrunkPass(texts)
    work.fill(ready.model.lm, features, ready.device)
    rows = TrunkRows(features, texts, ready.model.lm.dtype, mapped=False).gather(texts)
    assert rows.dtype == ready.model.lm.dtype
    assert features.stored_bytes() == len(features.rows()) * 128 * rows.element_size()
    again = {row: place for batch in work._batches for row, place in _computed(ready, batch).items()}
    for text, values in zip(texts, rows, strict=True):
        for digest, value in zip(beginnings(text), values, strict=False):
            assert torch.equal(value, again[digest])
        assert not values[len(text) - 1 :].any()


def _computed(ready: Prepared, batch: Any) -> dict[str, torch.Tensor]:
    ids = torch.zeros(len(batch), len(batch[0][0]) - 1, dtype=torch.long)
    for row, (text, _) in enumerate(batch):
        ids[row, : len(text) - 1] = torch.from_numpy(text[:-1])
    hidden = ready.model.lm.trunk(ids)
    return {name: hidden[row, place] for row, (_, own) in enumerate(batch) for name, place in own.items()}


class Killed(BaseException):
    pass


def test_a_pass_that_is_killed_and_run_again_gives_the_same_rows(
    worlds: dict[Modality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "_BATCH_TOKENS", 64)
    monkeypatch.setattr(trunk, "_BLOCK_ROWS", 40)
    ready = _ready(worlds)
    texts = ready.batches.texts(STEPS)
    kept = [_cache_of(ready, Cache(tmp_path / name)) for name in ("whole", "killed", "shared")]
    TrunkPass(texts).fill(ready.model.lm, kept[0], ready.device)
    assert len(kept[0].block_names()) > 3
    whole, real, ends = _values(kept[0]), FeatureSet.write_block, iter((2, 1, 0, 1, 99))
    left = [next(ends)]

    def write_block(self: FeatureSet, *words: Any, **options: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(self, *words, **options)

    monkeypatch.setattr(FeatureSet, "write_block", write_block)
    stored = [0]
    while True:
        try:
            TrunkPass(texts[::-1]).fill(ready.model.lm, kept[1], ready.device)
            break
        except Killed:
            left[0] = next(ends)
            stored.append(len(kept[1].rows()))
    assert stored == sorted(stored) and stored[1] > 0
    assert _values(kept[1]) == whole
    for rank in range(2):  # of two processes
        TrunkPass(texts).fill(ready.model.lm, kept[2], ready.device, rank=rank, count=2)
    assert _values(kept[2]) == whole


def test_another_model_start_or_precision_has_other_rows(worlds: dict[Modality, Path]) -> None:
    def name(*overrides: str, weights: str | None = None) -> str:
        ready = _ready(worlds, *overrides)
        return trunk_spec(ready.model.lm, weights or ready.lm).name

    names = [name(), name("model.start=3"), name("lm.dtype=bfloat16"), name(weights="other")]
    assert len(set(names)) == 4 and all(one.startswith("text-trunk-") for one in names)
    assert name() == name("model.end=7", "model.blind=true", "optim.seed=3", "model.connector=separate") == names[0]


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=6), min_size=1, max_size=8))
def test_each_beginning_is_one_row_whatever_the_order(rows: list[list[int]]) -> None:
    texts = [np.array(row) for row in rows]
    wanted = {tuple(row[:end]) for row in rows for end in range(1, len(row))}
    work = TrunkPass(texts)
    assert work.lacking(()) == len(wanted) == len({name for text in texts for name in beginnings(text)})
    other = TrunkPass(texts[::-1] + texts)
    plain = [[[(text.tolist(), own) for text, own in batch] for batch in one._batches] for one in (work, other)]
    assert plain[0] == plain[1]
    assert work.lacking((), rank=0, count=2) + work.lacking((), rank=1, count=2) == len(wanted)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["model.variant=epalm"], "prompt"),
        (["model.variant=epalm-ada"], "adapters"),
        (["model.adapters=lora"], "LoRA"),
        (["lm.train=true"], "is trained"),
        (["model.attention=reference"], "padding"),
        (["model.start=0"], "block 0"),
    ],
)
def test_what_is_not_of_the_text_alone_is_refused(overrides: list[str], why: str, worlds: dict[Modality, Path]) -> None:
    if why == "LoRA":
        pytest.importorskip("peft")
    ready = _ready(worlds, *overrides)
    with pytest.raises(UsageError, match=why):
        require_trunk(ready.model)


def test_rows_that_do_not_fit_are_refused_before_they_are_computed(
    worlds: dict[Modality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, cache = _ready(worlds), Cache(tmp_path / "cache")
    monkeypatch.setattr(type(cache.objects), "free_bytes", lambda _self: 1 << 20)
    monkeypatch.setattr(type(ready.model.lm), "trunk", lambda *_: pytest.fail("computed"))
    with pytest.raises(CacheError, match="do not fit"):
        use_trunk(cache, ready, drawn_batches(ready, None), tmp_path / "run")


def test_hidden_states_that_are_no_numbers_are_refused(worlds: dict[Modality, Path], tmp_path: Path) -> None:
    ready = _ready(worlds)
    with torch.no_grad():
        ready.model.lm.model.decoder.layers[0].fc1.weight.fill_(torch.inf)
    with pytest.raises(EpalmError, match="no numbers in float32"):
        TrunkPass(ready.batches.texts(1)).fill(ready.model.lm, _cache_of(ready, Cache(tmp_path)), ready.device)


def test_the_commands(trial: Trial, epalm: Epalm) -> None:
    def train(*words: object) -> Any:
        short = ("--variant", "epalm-lin", "--set", "optim.max_steps=3", "--set", "optim.batch_size=4")
        places = ("--data", trial.world, "--recipe", "playground", "--cache", trial.cache, "--no-canary")
        return epalm("train", *places, *short, "--inject", "2@4:8", "--json", *words)

    refused = train("--cache-trunk", "-m", "image")
    assert refused.code == 1 and "--from-cache --cache-trunk" in refused.err
    done = train("--from-cache", "--cache-trunk", "--variant", "epalm")
    assert "a prompt stands before the text" in done.err and done.err.count("error: ") == 1
    planned = train("--from-cache", "--cache-trunk", "--plan")
    assert planned.code == 0, planned.err
    told = json.loads(planned.out)["trunk_bytes"]
    done = train("--from-cache", "--cache-trunk")
    assert done.code == 0, done.err
    sets = {one["set"]: one for one in json.loads(epalm("cache", "ls", "--cache", trial.cache, "--json").out)}
    (name,) = (one for one in sets if one.startswith("text-trunk-"))
    assert sets[name]["bytes"] == told > 0 and len(sets[name]["runs"]) == 1
    assert epalm("cache", "push", name, trial.root / "other", "--cache", trial.cache).code == 0
    (chunk,) = (trial.cache / "sets" / name / "blocks").rglob("c.0.0.0.0")
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    damaged = train("--from-cache", "--cache-trunk", "--again")
    assert damaged.code == 1 and "verify" in damaged.err and damaged.err.count("error: ") == 1
    mended = epalm("cache", "verify", name, "--repair", "--cache", trial.cache)
    assert mended.code == 3 and "dropped" in mended.err
    assert train("--from-cache", "--cache-trunk", "--again").code == 0
