"""Repair: whatever is damaged is found, named and never read, and the next extraction makes its rows again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epalm.cache.blocks import read_block, write_block
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import read_manifests
from epalm.cache.objects.local import LocalObjects
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.errors import CacheError
from epalm.extract.encoders.registry import EncoderChoice, build_encoder
from epalm.extract.pipeline import ExtractSummary
from epalm.samples import Modality
from tests.conftest import Done, Epalm, save_small_vit
from tests.damages import DAMAGES, chunks, lost_record, swapped, torn_record
from tests.extractions import Machine, extract_features

TRAIN, TEST, ROWS, VIEWS = 7, 3, 3, 2


def extract(root: Path, cache: Path) -> ExtractSummary:
    """The media below `root` into a cache: what lacks of them."""
    choice = EncoderChoice("vit", str(root / "vit"), modality=Modality.IMAGE)
    encoder = build_encoder(choice, device="cpu")
    return extract_features(
        load_dataset(str(root / "media" / "samples.jsonl"), Modality.IMAGE),
        Modality.IMAGE,
        encoder,
        (0, 1),
        Cache(cache),
        machine=Machine(batch_size=2 * (VIEWS + 1), workers=0, block_rows=ROWS),
        views=VIEWS,
        choice=choice,
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache beside its media and weights: blocks of three rows, augmented views for training media."""
    root = tmp_path_factory.mktemp("pristine")
    (root / "media").mkdir()
    lines = []
    for number in range(TRAIN + TEST):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(root / "media" / f"{number}.png")
        split = "train" if number % 10 < TRAIN else "test"
        sample = {"modality": "image", "media": f"{number}.png", "task": "caption", "split": split}
        lines.append(json.dumps({**sample, "references": ["noise"]}))
    (root / "media" / "broken.png").write_bytes(b"no picture")
    lines.insert(2, json.dumps({**sample, "media": "broken.png", "split": "train", "references": ["nothing"]}))
    data = root / "media" / "samples.jsonl"
    data.write_text("\n".join(lines))
    save_small_vit(root / "vit", depth=2)
    extract(root, root / "cache")
    return root


@pytest.fixture
def features(pristine: Path, tmp_path: Path) -> FeatureSet:
    shutil.copytree(pristine / "cache", tmp_path / "cache")
    (found,) = Cache(tmp_path / "cache").sets()
    return found


def rows(features: FeatureSet) -> dict[tuple[str, int], np.ndarray]:
    """(Digest, view) → row, as a reader gives them now."""
    (fresh,) = Cache(Path(features.where).parents[1]).sets()
    reader = fresh.open()
    return {
        (digest, view): reader.gather(reader.rows_of([digest]), view=view)[0]
        for view in fresh.views()
        for digest in fresh.rows(view)
    }


def require_rows(features: FeatureSet, expected: dict[tuple[str, int], np.ndarray]) -> None:
    """That these rows are there, and no others; blocks may be others, and a batch's company moves the last bits."""
    found = rows(features)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        np.testing.assert_allclose(row, expected[key], rtol=0, atol=4e-3)


def verify(epalm: Epalm, features: FeatureSet, *words: str) -> Done:
    return epalm("cache", "verify", *words, "--json", "--cache", Path(features.where).parents[1])


def is_read_as_features(features: FeatureSet, whole: np.ndarray) -> bool:
    """Whether opening the set gives a row that was not committed."""
    try:
        (fresh,) = Cache(Path(features.where).parents[1]).sets()
        reader = fresh.open()
    except CacheError:
        return False
    rows = reader.gather(np.arange(len(reader.digests)))
    return not np.array_equal(rows, whole)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_named_and_never_read_and_the_next_extraction_makes_the_rows_again(
    damage: Callable[[FeatureSet], None], pristine: Path, features: FeatureSet, epalm: Epalm
) -> None:
    reader = features.open()
    whole, before = reader.gather(np.arange(len(reader.digests))), rows(features)
    damage(features)
    if damage is not lost_record:
        assert not is_read_as_features(features, whole)
    found = verify(epalm, features)
    assert found.code == 3 and json.loads(found.out)["faults"]
    repaired = verify(epalm, features, "--repair")
    faults = json.loads(repaired.out)["faults"]
    missing = before.keys() - rows(features).keys()
    assert (repaired.code == 3) == bool(missing)
    assert not missing or any("epalm extract" in fault["repair"] for fault in faults)
    done = extract(pristine, Path(features.where).parents[1])
    assert done.encoded == len({digest for digest, _ in missing}) and done.media == done.hits + done.encoded + 1
    require_rows(features, before)
    again = verify(epalm, features)
    assert again.code == 0, again.err


def test_the_cache_as_it_was_made_is_whole(features: FeatureSet, epalm: Epalm) -> None:
    assert verify(epalm, features).code == 0
    assert sorted(record.views for record in features.records()) == [(0,)] + [(0, 1, 2)] * 3


def _fault(done: Done, name: str) -> dict[str, str]:
    return next(fault for fault in json.loads(done.out)["faults"] if fault["what"].startswith(name))


def test_rows_of_a_dropped_block_are_named_and_a_medium_that_is_gone_is_said_to_be_missing(
    pristine: Path, features: FeatureSet, tmp_path: Path, epalm: Epalm
) -> None:
    root = tmp_path / "moved"
    shutil.copytree(pristine / "media", root / "media")
    shutil.copytree(pristine / "vit", root / "vit")
    before = rows(features)
    assert extract(root, tmp_path / "cache").hits == TRAIN + TEST
    record = next(record for record in features.records() if len(record.rows) == ROWS)
    names = {digest: name for one in read_manifests(features.objects) for name, digest in one.digests.items()}
    gone, changed, left = (names[row] for row in record.rows)
    (root / "media" / gone).unlink()
    shutil.copy(root / "media" / left, root / "media" / changed)
    (Path(features.where) / record.chunk).write_bytes(b"")
    done = verify(epalm, features, "--repair")
    fault = _fault(done, "block")
    assert done.code == 3 and fault["outcome"] == "dropped"
    assert f"3 rows are missing now: {gone}, {changed}, {left}" in fault["repair"]
    assert f"epalm extract --data {root / 'media' / 'samples.jsonl'}" in fault["repair"]
    assert verify(epalm, features).code == 0
    summary = extract(root, tmp_path / "cache")
    assert (summary.encoded, summary.equal, summary.bad) == (1, 1, 2)  # the broken one, and the one that is gone
    (fresh,) = Cache(tmp_path / "cache").sets()
    assert gone in [entry.media for entry in fresh.ledger.entries()]
    assert before.keys() - rows(features).keys() == {(row, view) for row in record.rows[:2] for view in record.views}
    assert extract(pristine, tmp_path / "cache").encoded == 2  # where they are still there
    require_rows(features, before)


def test_a_block_whose_rows_are_all_in_others_is_dropped_and_nothing_is_missing(
    features: FeatureSet, epalm: Epalm
) -> None:
    before = rows(features)
    record = max(features.records(), key=lambda record: record.bytes)
    values = read_block(features.objects, record)
    assert write_block(features.objects, record.rows[::-1], record.views, values[::-1], {})
    (Path(features.where) / record.chunk).write_bytes(b"")
    assert verify(epalm, features, "--repair").code == 0
    assert record.block not in features.block_names()
    require_rows(features, before)


def test_a_damaged_description_of_a_set_is_named_and_left(features: FeatureSet, epalm: Epalm) -> None:
    path = Path(features.where) / "spec.json"
    path.write_text(path.read_text().replace('"width":24', '"width":25'))
    before = {file: file.read_bytes() for file in Path(features.where).rglob("*") if file.is_file()}
    for words in ((), ("--repair",)):
        done = verify(epalm, features, *words)
        assert done.code == 3 and "move it away" in _fault(done, "spec.json")["hint"]
    assert {file: file.read_bytes() for file in Path(features.where).rglob("*") if file.is_file()} == before


def test_what_the_storage_would_not_give_is_not_taken_for_damaged(
    features: FeatureSet, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, read = chunks(features)[0].name, LocalObjects.read

    def failing(self: LocalObjects, key: str) -> bytes:
        if key.endswith(target) and self.size(key):
            raise CacheError("the disk is asleep")
        return read(self, key)

    before = rows(features)
    with monkeypatch.context() as patched:
        patched.setattr(LocalObjects, "read", failing)
        done = verify(epalm, features, "--repair")
    assert done.code == 3 and _fault(done, "block")["outcome"] == "left"
    require_rows(features, before)


def test_repairs_of_several_damages_at_once_do_not_disturb_each_other(
    pristine: Path, features: FeatureSet, epalm: Epalm
) -> None:
    before = rows(features)
    swapped(features)
    torn_record(features)
    (Path(features.where) / "recorded.json").write_text("[")
    assert verify(epalm, features, "--repair").code == 3
    extract(pristine, Path(features.where).parents[1])
    assert verify(epalm, features).code == 0
    require_rows(features, before)
