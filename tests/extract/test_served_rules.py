"""A set that holds all tokens serves requests for fewer of them, with the bits that extracting these stores."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.cache.feature_set import FeatureSet
from epalm.cache.reader import FeatureReader
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.errors import UsageError
from epalm.extract.encoders.registry import EncoderChoice, build_encoder, default_kind
from epalm.playground.generate import generate_playground
from epalm.samples import Modality
from epalm.train.runs.run_folder import RunFolder
from tests.cache.test_feature_set import SPEC
from tests.extractions import Machine, extract_features
from tests.trials import Trial

RULES = {
    Modality.IMAGE: ("cls", "mean", "pool:2x2", "pool:4x8"),
    Modality.VIDEO: ("cls", "mean", "pool:2x2", "pool:2x2x1", "time-mean"),
    Modality.AUDIO: ("cls", "mean", "pool:2x4"),
}
LAYERS = (1, 3, 4, 5)
CASES = [(modality, dtype) for modality in RULES for dtype in ("float16", "float32")]
Extract = Callable[[str, Sequence[int]], FeatureSet]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def extract(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Extract:
    """Extracts by a rule some layers of a few media in three views, each rule into a cache of its own."""
    modality, dtype = request.param
    root = tmp_path_factory.mktemp("served")
    dataset = load_dataset(str(generate_playground(root / "world", modality, counts=(5, 0, 0))), modality)

    def by(rule: str, layers: Sequence[int]) -> FeatureSet:
        choice = EncoderChoice(default_kind(modality), "playground", tokens=rule)
        cache = Cache(root / rule)
        machine = Machine(workers=0, batch_size=4, block_rows=3)
        encoder, options = build_encoder(choice, device="cpu"), {"choice": choice, "views": 2, "dtype": dtype}
        extract_features(dataset, modality, encoder, tuple(layers), cache, machine=machine, **options)
        (features,) = cache.sets()
        return features

    by.modality = modality  # type: ignore[attr-defined]
    return by


@pytest.mark.slow
def test_derived_rows_are_those_that_extraction_stores(extract: Extract) -> None:
    whole = extract("all", LAYERS)
    for rule in RULES[extract.modality]:  # type: ignore[attr-defined]
        stored = extract(rule, LAYERS)
        assert whole.spec.narrowed(rule, LAYERS) == stored.spec  # fingerprint and all
        assert whole.spec.serves(stored.spec) and not stored.spec.serves(whole.spec)
        expected = stored.open()
        rows, views = expected.rows_of(expected.digests), expected.views_of()
        assert views == (0, 1, 2)
        for layers in (LAYERS, LAYERS[1:], (1, 4, 5), (5,)):
            wanted = replace(stored.spec, layers=layers)
            assert whole.spec.serves(wanted)
            places = [LAYERS.index(layer) for layer in layers]
            for memory in (None, 0):
                reader = FeatureReader(whole.objects, whole.records(), whole.spec, wanted=wanted, memory=memory)
                for view in views:
                    values = reader.gather(reader.rows_of(expected.digests), view=view)
                    assert values.dtype == np.dtype(stored.spec.stored_dtype)
                    assert values.tobytes() == expected.gather(rows, view=view)[:, places].tobytes(), (rule, layers)
        derived = whole.table(tokens=rule)
        order = [stored.digests().index(digest) for digest in derived.digests]
        np.testing.assert_array_equal(derived.to_dask().compute(), stored.to_dask().compute()[order])
        assert (
            np.concatenate(list(derived.stretches(2))).tobytes()
            == np.concatenate(list(stored.table().stretches(100)))[order].tobytes()
        )


@given(st.sampled_from(["cls", "mean", "pool:2x2", "pool:2x3", "pool:1x3"]), st.data())
@settings(deadline=None)
def test_narrow_rows_do_not_depend_on_how_they_are_taken(rule: str, data: st.DataObject) -> None:
    """Layers before tokens or after, some rows or all, in NumPy or in torch."""
    encoder = {**SPEC.encoder, "tokens": "all", "layout": {"cls": True, "grid": [4, 6]}, "cls_token": "first"}
    spec = replace(SPEC, encoder={**encoder, "token": "all"}, tokens=25)
    layers = sorted(data.draw(st.sets(st.sampled_from(SPEC.layers), min_size=1)))
    wanted = spec.narrowed(rule, layers)
    seed = data.draw(st.integers(0, 99))
    values = np.random.default_rng(seed).normal(size=(3, *spec.row_shape)).astype(np.float16)
    values[1, :, 20:] = 0  # padding
    taken = spec.narrow(values, wanted)
    assert taken.shape == (3, *wanted.row_shape)
    assert taken[1:2].tobytes() == spec.narrow(values[1:2], wanted).tobytes()
    every = spec.narrow(values, spec.narrowed(rule, spec.layers))
    assert taken.tobytes() == every[:, [spec.layers.index(layer) for layer in layers]].tobytes()
    assert (
        taken.tobytes() == spec.layout.pool(torch.from_numpy(values), rule)[:, spec.places_of(layers)].numpy().tobytes()
    )


def test_what_cannot_be_had_is_refused() -> None:
    encoder = {**SPEC.encoder, "tokens": "all", "layout": {"cls": False, "grid": [4, 6]}, "token": "all"}
    spec = replace(SPEC, encoder=encoder, tokens=24)
    for rule in ("cls", "pooled", "pool:3x3", "time-mean"):
        with pytest.raises(UsageError) as caught:
            spec.narrowed(rule, spec.layers)
        assert caught.value.hint
    mean = spec.narrowed("mean", spec.layers)
    with pytest.raises(UsageError, match="holds mean tokens"):
        mean.narrowed("pool:2x2", spec.layers)
    with pytest.raises(UsageError, match="does not hold layers"):
        spec.narrowed("mean", (0,))
    assert not spec.serves(replace(mean, width=6)) and not spec.serves(replace(mean, version=2))


@pytest.mark.slow
def test_a_request_for_fewer_tokens_finds_the_set_of_all(trial: Trial) -> None:
    """As typed: extract, train and score; what is derived and what is stored is one training."""
    cache, shared = Cache(trial.cache), ("-m", "image", "--data", trial.world, "--cache", trial.cache)
    (stored,) = cache.sets()
    kept = trial.root / "kept"
    shutil.move(stored.where, kept)
    assert trial.extract("--tokens", "all") == (0, 5)
    (whole,) = cache.sets()
    assert whole.spec.serves(stored.spec) and trial.extract() == (5, 0)
    planned = trial.epalm("extract", *shared, "--weights", trial.weights, "--layers", "last:3", "--plan", "--json")
    figures = json.loads(planned.out)
    assert figures["set"] == whole.name and figures["to_encode"] == 0
    assert figures["derived"] == "cls tokens are made of its all"
    few = ("--set", "optim.max_steps=2", "--set", "model.tokens=3", "--set", "optim.batch_size=4", "--no-canary")
    train = ("train", "--from-cache", *shared, "--recipe", "playground", *few)
    done = trial.epalm(*train, "--run", "derived")
    assert done.code == 0 and "cls tokens made of all" in done.err, done.err
    features = RunFolder(Path(".epalm/runs/derived")).inputs["features"]
    assert (features["set"], features["fingerprint"]) == (whole.name, stored.spec.fingerprint)
    assert json.loads(features["choice"]["encoder"])["tokens"] == "cls"
    assert trial.epalm("cache", "why", whole.name, "--cache", trial.cache).err.count(
        "serves requests for all, cls, mean"
    )
    scored = trial.epalm("score", "--split", "test", "--cache", trial.cache, "--json")
    assert scored.code == 0, scored.err
    shutil.rmtree(whole.where)
    shutil.move(kept, stored.where)
    trial.extract()
    again = trial.epalm(*train)
    assert again.code == 0 and "done already" in again.err, again.err
    rescored = trial.epalm("score", "--split", "test", "--cache", trial.cache, "--json")
    assert rescored.code == 0 and json.loads(rescored.out) == json.loads(scored.out)
    assert ", 0 to decode" in rescored.err


def test_what_a_set_of_all_lacks_goes_to_a_set_of_its_own(trial: Trial) -> None:
    cache = Cache(trial.cache)
    (stored,) = cache.sets()
    shutil.rmtree(stored.where)
    trial.extract("--tokens", "all")
    row = trial.samples[0]
    (trial.world / "new.png").write_bytes(trial.media[0].read_bytes() + b" ")
    trial.samples = [*trial.samples, {**row, "id": "new", "media": "new.png"}]
    assert trial.extract() == (0, 6)
    assert {one.spec.rule for one in cache.sets()} == {"all", "cls"}
    recorded = next(one.recorded for one in cache.sets() if one.spec.rule == "all")
    assert json.loads(recorded["encoder"])["tokens"] == "all"
    assert trial.extract() == (6, 0)
