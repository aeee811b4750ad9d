"""Why: which input differs between two sets, and where the row of a medium is or why there is none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm.cache.blocks import write_block
from epalm.cache.care.why import differences, library_differences, nearest, nearest_difference, why_set
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry, Manifest, write_manifest
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.fingerprint import digest_file
from tests.cache.test_feature_set import SPEC, folder, names, values
from tests.conftest import Epalm

VIDEO = replace(
    SPEC,
    modality="video",
    encoder={"kind": "timesformer", "weights": "a" * 64, "architecture": {"depth": 6}},
    preprocessing={"frames": 8, "size": [224, 224], "interpolation": "bicubic", "mel_bins": 128},
    augmentation={"flip": True, "scale": [0.5, 1.0], "seed": 0},
    compute={"weights": "float32", "precision": "float32"},
)


def _with(spec: FeatureSpec, field: str, **changed: Any) -> FeatureSpec:
    changes: dict[str, Any] = {field: {**getattr(spec, field), **changed}}
    return replace(spec, **changes)


@pytest.mark.parametrize(
    ("other", "change"),
    [
        (_with(VIDEO, "encoder", weights="b" * 64), "encoder.weights aaaaaaaaaaaa → bbbbbbbbbbbb"),
        (_with(VIDEO, "encoder", kind="vit"), "encoder.kind timesformer → vit"),
        (_with(VIDEO, "encoder", kind="vit", architecture={"depth": 7, "patch": 16}), "encoder.kind timesformer → vit"),
        (_with(VIDEO, "encoder", architecture={"depth": 7}), "encoder.architecture.depth 6 → 7"),
        (_with(VIDEO, "preprocessing", size=[384, 384]), "preprocessing.size 224 → 384"),
        (_with(VIDEO, "preprocessing", size=(224, 384)), "preprocessing.size [224, 224] → [224, 384]"),
        (_with(VIDEO, "preprocessing", interpolation="bilinear"), "preprocessing.interpolation bicubic → bilinear"),
        (_with(VIDEO, "preprocessing", frames=16), "preprocessing.frames 8 → 16"),
        (_with(VIDEO, "preprocessing", mel_bins=64), "preprocessing.mel_bins 128 → 64"),
        (_with(VIDEO, "preprocessing", reduced_jpeg=True), "preprocessing.reduced_jpeg none → True"),
        (replace(VIDEO, layers=(3, 4)), "layers [3, 4, 5] → [3, 4]"),
        (_with(VIDEO, "augmentation", seed=1), "augmentation.seed 0 → 1"),
        (_with(VIDEO, "augmentation", scale=[0.8, 1.0]), "augmentation.scale [0.5, 1.0] → [0.8, 1.0]"),
        (replace(VIDEO, augmentation=None), "augmentation on → none"),
        (_with(VIDEO, "compute", precision="bfloat16"), "compute.precision float32 → bfloat16"),
        (replace(VIDEO, stored_dtype="float32"), "stored_dtype float16 → float32"),
        (
            replace(_with(VIDEO, "encoder", tokens="all", layout={"cls": True, "grid": [2, 2]}), tokens=5),
            "encoder.token cls → all",
        ),
        (replace(VIDEO, version=2), "version of the video extraction code 1 → 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_input_that_differs_is_named_in_words(other: FeatureSpec, change: str) -> None:
    assert differences(VIDEO, other) == [change]
    assert other.fingerprint != VIDEO.fingerprint


def test_what_reads_the_same_does_not_differ() -> None:
    assert differences(SPEC, FeatureSpec.from_json(json.loads(SPEC.to_bytes()))) == []
    assert differences(SPEC, _with(SPEC, "preprocessing", size=(4, 4))) == []


def _set(root: Path, spec: FeatureSpec, rows: int = 2, **recorded: str) -> FeatureSet:
    features = Cache(root).feature_set(spec, recorded=recorded)
    features.write_block(names(rows), values(rows))
    return features


def test_the_nearest_set_is_the_one_with_the_fewest_differences(tmp_path: Path) -> None:
    near = _set(tmp_path, _with(SPEC, "preprocessing", size=[8, 8]))
    _set(tmp_path, _with(replace(SPEC, version=2), "preprocessing", size=[8, 8]))
    mine = _set(tmp_path, SPEC)
    sets = Cache(tmp_path).sets()
    found = nearest(SPEC, sets)
    assert found and found.name == near.name
    assert nearest_difference(SPEC, sets) == ["preprocessing.size 8 → 4"]
    assert nearest(SPEC, [mine]) is None and nearest_difference(SPEC, []) == []


def test_libraries_that_differ_are_named_and_the_choice_of_encoder_is_none_of_them() -> None:
    was, now = {"torch": "2.5", "pillow": "11", "encoder": "{}"}, {"torch": "2.6", "pillow": "11", "av": "18"}
    assert library_differences(was, now) == ["torch 2.5 → 2.6", "av none → 18"]


def test_blocks_of_one_set_that_other_versions_made_are_told_apart(tmp_path: Path, epalm: Epalm) -> None:
    features = _set(tmp_path, SPEC, torch="2.5")
    again = Cache(tmp_path).feature_set(SPEC, recorded={"torch": "2.6"})
    again.write_block(names(2, "e"), values(2))
    made = [(one["versions"]["torch"], one["blocks"]) for one in why_set(again, [])["blocks"]]
    assert made == [("2.6", 1), ("2.5", 1)]
    done = epalm("cache", "why", features.name[:-2], "--cache", tmp_path)
    assert done.code == 0 and "torch 2.5 → 2.6" in done.out and "only feature set" in done.err


def test_why_of_a_set_says_what_differs(tmp_path: Path, epalm: Epalm) -> None:
    _set(tmp_path, SPEC, torch="2.5")
    other = _set(tmp_path, _with(SPEC, "preprocessing", size=[8, 8]), torch="2.6")
    done = epalm("cache", "why", other.name, "--cache", tmp_path)
    assert "preprocessing.size 4 → 8" in done.out and "torch 2.5 → 2.6" in done.out
    facts = json.loads(epalm("cache", "why", other.name, "--cache", tmp_path, "--json").out)
    assert facts["nearest"] == SPEC.name and facts["inputs"] == ["preprocessing.size 4 → 8"]


class Medium:
    """A picture in a data set, and what a set has of it."""

    def __init__(self, tmp_path: Path, epalm: Epalm) -> None:
        self.path = tmp_path / "data" / "cats" / "1.png"
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b"first")
        self.cache, self._epalm = tmp_path / "cache", epalm
        self.features = Cache(self.cache).feature_set(SPEC, recorded={"torch": "2.5"})

    def extract(self) -> None:
        digest = digest_file(self.path)
        self.features.write_block([digest], values(1))
        write_manifest(self.features.objects, Manifest("data.jsonl", {"cats/1.png": digest}))

    def why(self, subject: object = None) -> dict[str, Any]:
        done = self._epalm("cache", "why", subject or self.path, "--json", "--cache", self.cache)
        assert done.code == 0, done.err
        (facts,) = json.loads(done.out)["sets"]
        assert isinstance(facts, dict)
        assert self._epalm("cache", "why", subject or self.path, "--cache", self.cache).code == 0
        return facts


@pytest.fixture
def medium(tmp_path: Path, epalm: Epalm) -> Medium:
    return Medium(tmp_path, epalm)


def test_a_row_is_found_with_its_block_time_and_versions(medium: Medium) -> None:
    medium.extract()
    facts = medium.why()
    (record,) = medium.features.records()
    assert (facts["set"], facts["block"], facts["views"]) == (SPEC.name, record.block, [0])
    assert facts["time"] == record.time and facts["versions"] == {"torch": "2.5"}


def test_a_medium_that_was_never_extracted_says_so(medium: Medium) -> None:
    assert "never extracted" in medium.why()["missing"]


def test_a_medium_whose_bytes_changed_says_so(medium: Medium) -> None:
    medium.extract()
    medium.path.write_bytes(b"second")
    assert "bytes have changed" in medium.why()["missing"]


def test_a_bad_medium_says_what_the_ledger_says(medium: Medium) -> None:
    medium.features.ledger.add_all([Entry("cats/1.png", digest_file(medium.path), "it is torn", None)])
    assert "it is torn" in medium.why()["missing"]


def test_a_medium_that_was_not_there_says_what_the_ledger_says(medium: Medium) -> None:
    medium.features.ledger.add_all([Entry(media="cats/1.png", digest=None, error="it is not there", hint=None)])
    assert "it is not there" in medium.why()["missing"]
    medium.path.unlink()
    assert "it is not there" in medium.why("cats/1.png")["missing"]


def test_a_medium_that_is_not_here_is_found_by_its_name(medium: Medium) -> None:
    medium.extract()
    medium.path.unlink()
    assert medium.why("cats/1.png")["set"] == SPEC.name


def test_sets_of_other_modalities_are_not_asked(medium: Medium) -> None:
    other = replace(SPEC, modality="audio")
    Cache(medium.cache).feature_set(other, recorded={}).write_block(names(2), values(2))
    assert medium.why()["set"] == SPEC.name


def test_what_is_neither_is_one_error_and_a_damaged_set_is_only_a_warning(medium: Medium, epalm: Epalm) -> None:
    medium.extract()
    damaged = Cache(medium.cache).feature_set(replace(SPEC, version=2), recorded={})
    (folder(damaged) / "spec.json").write_text("{")
    assert medium.why()["set"] == SPEC.name
    done = epalm("cache", "why", "dog.png", "--cache", medium.cache)
    assert done.code == 1 and SPEC.name in done.err and damaged.name in done.err


def test_blocks_that_say_nothing_of_their_making_are_told_as_such(medium: Medium) -> None:
    digest = digest_file(medium.path)
    assert write_block(medium.features.objects, [digest], (0,), np.asarray(values(1)), {"recorded": None})
    assert medium.why()["versions"] == {}
