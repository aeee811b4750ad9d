"""Rows of many tokens from the command line to the committed blocks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.cache.token_rules import TokenLayout
from epalm.datasets import load_dataset
from epalm.errors import CacheError
from epalm.extract.pipeline import execute
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.extract.test_pipeline import Projections
from tests.extractions import extract_features, plan_features

MEDIA, LAYERS, WIDTH = 7, 2, 24
TOKENS = {"cls": 1, "mean": 1, "pool:2x1": 3, "all": 5}  # of 2 × 2 patches and [CLS]


@pytest.fixture
def words(tmp_path: Path, small_vit: Path) -> list[object]:
    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(MEDIA):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    how = ("--layers", "0,2", "--views", 1, "--workers", 0, "--json")
    return ["extract", "-m", "image", "--data", folder, "--weights", small_vit, *how]


def _values(features: FeatureSet) -> np.ndarray:
    """All rows (V, N, L, T, D), in the order of their media's digests."""
    reader = features.open()
    rows = reader.rows_of(sorted(features.rows()))
    return np.stack([reader.gather(rows, view=view) for view in (0, 1)])


def test_every_rule_from_plan_to_rows(words: list[object], tmp_path: Path, epalm: Epalm) -> None:
    """The plan's bytes are those that are written, and tokens that are stored give all else, to the bit."""
    stored: dict[str, np.ndarray] = {}
    for rule, tokens in TOKENS.items():
        asked = (*words, "--tokens", rule, "--cache", tmp_path / rule.replace(":", "-"))
        plan = json.loads(epalm(*asked, "--plan").out)
        assert (plan["tokens"], plan["bytes"]) == (tokens, MEDIA * 2 * LAYERS * tokens * WIDTH * 2)
        assert json.loads(epalm(*asked).out)["encoded"] == MEDIA
        (features,) = Cache(tmp_path / rule.replace(":", "-")).sets()
        assert (features.spec.rule, features.spec.tokens, features.verify()) == (rule, tokens, [])
        assert sum(record.bytes for record in features.records()) == plan["bytes"]
        assert json.loads(epalm(*asked).out)["hits"] == MEDIA
        stored[rule] = _values(features)
    layout = TokenLayout(True, (2, 2))
    for rule, values in stored.items():
        assert values.dtype == np.float16
        np.testing.assert_array_equal(layout.pool(stored["all"], rule), values)


def test_a_rule_that_does_not_fit_is_refused_with_what_does(words: list[object], epalm: Epalm) -> None:
    for rule, fault, hint in (
        ("pool:3x3", "does not divide the grid of 2×2 tokens", "pool:AxB with A of 1, 2 and B of 1, 2"),
        ("time-mean", "for clips", "pool:AxB"),
        ("some", "--tokens 'some' is unknown", "time-mean"),
    ):
        refused = epalm(*words, "--tokens", rule)
        told = " ".join(refused.err.split())
        assert refused.code == 1 and fault in told and hint in told, told


def test_blocks_of_large_rows_are_bounded_by_bytes(
    words: list[object], tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of at most that many, whatever --block-rows says; all media are there, and batches are no larger."""
    row = 2 * LAYERS * 5 * WIDTH * 2  # of both views
    for module in ("cache.spec", "extract.stream"):
        monkeypatch.setattr(f"epalm.{module}.BLOCK_BYTES", 3 * row + row // 2)
    done = epalm(*words, "--tokens", "all", "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    (features,) = Cache(tmp_path / "cache").sets()
    assert sorted(len(record.rows) for record in features.records()) == [1, 3, 3]
    exported = epalm("cache", "export", features.name, tmp_path / "rows.h5", "--cache", tmp_path / "cache")
    assert exported.code == 0, exported.err
    assert epalm("cache", "import", tmp_path / "rows.h5", "--cache", tmp_path / "there").code == 0
    (there,) = Cache(tmp_path / "there").sets()
    assert sorted(len(record.rows) for record in there.records()) == [1, 3, 3]
    np.testing.assert_array_equal(_values(there), _values(features))


def test_in_a_cache_that_can_only_be_read_the_tokens_asked_for_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr("epalm.extract.pipeline.warn", messages.append)
    (tmp_path / "media").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "media" / "a.png")
    cache = Cache(tmp_path / "cache")
    what = load_dataset(str(tmp_path / "media"), Modality.IMAGE), Modality.IMAGE, Projections(), (1, 2), cache
    name = extract_features(*what).set_name

    def refuse(*_: object) -> None:
        raise CacheError("the cache cannot be written")

    plan = replace(plan_features(*what), rule="mean", derived="made")
    monkeypatch.setattr(cache, "remember", refuse)
    assert execute(plan).set_name == name
    assert "--set encoder.tokens=mean" in messages[0]
    execute(replace(plan, rule="cls", derived=""))
    assert len(messages) == 1
