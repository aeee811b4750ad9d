"""Repair: whatever is damaged is found and named, and comes back byte for byte from media and encoder."""

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
from epalm.extract.pipeline import LocalEngine, extract_features
from epalm.samples import Dataset, Modality
from tests.conftest import Done, Epalm, save_small_vit
from tests.damages import DAMAGES, chunks, lost_record, records, swapped, torn_record

TRAIN, TEST, ROWS, VIEWS = 7, 3, 3, 2


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
    choice = EncoderChoice("vit", str(save_small_vit(root / "vit", depth=2)), modality=Modality.IMAGE)
    encoder = build_encoder(choice, device="cpu")
    extract_features(
        load_dataset(str(data), Modality.IMAGE),
        Modality.IMAGE,
        encoder,
        (0, 1),
        Cache(root / "cache"),
        engine=LocalEngine(encoder, batch_size=2 * (VIEWS + 1), workers=0, block_rows=ROWS),
        views=VIEWS,
        choice=choice,
    )
    return root


@pytest.fixture
def features(pristine: Path, tmp_path: Path) -> FeatureSet:
    shutil.copytree(pristine / "cache", tmp_path / "cache")
    (found,) = Cache(tmp_path / "cache").sets()
    return found


def contents(features: FeatureSet) -> dict[str, tuple[bytes, bytes]]:
    """Block → bytes of its chunk and of the chunk's description, whatever folder they lie in."""
    root, (fresh,) = Path(features.where), Cache(Path(features.where).parents[1]).sets()
    return {
        record.block: ((root / record.chunk).read_bytes(), (root / record.metadata).read_bytes())
        for record in fresh.records()
    }


def verify(epalm: Epalm, features: FeatureSet, *words: str) -> Done:
    return epalm("cache", "verify", *words, "--json", "--workers", 0, "--cache", Path(features.where).parents[1])


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
def test_damage_is_found_named_never_read_and_repaired_to_the_same_bytes(
    damage: Callable[[FeatureSet], None], features: FeatureSet, epalm: Epalm
) -> None:
    reader = features.open()
    whole, before = reader.gather(np.arange(len(reader.digests))), contents(features)
    damage(features)
    if damage is not lost_record:
        assert not is_read_as_features(features, whole)
    found = verify(epalm, features)
    assert found.code == 3 and json.loads(found.out)["faults"]
    repaired = verify(epalm, features, "--repair")
    assert repaired.code == 0, repaired.err
    again = verify(epalm, features)
    assert again.code == 0, again.err
    assert contents(features) == before


def test_the_cache_as_it_was_made_is_whole(features: FeatureSet, epalm: Epalm) -> None:
    assert verify(epalm, features).code == 0
    assert sorted(record.views for record in features.records()) == [(0,)] + [(0, 1, 2)] * 3


def _fault(done: Done, name: str) -> dict[str, str]:
    return next(fault for fault in json.loads(done.out)["faults"] if fault["what"].startswith(name))


def _with_media(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the media that the manifest leads to, so that some can be taken away."""
    shutil.copytree(pristine / "media", tmp_path / "media")
    monkeypatch.setattr("epalm.extract.sources.load_dataset", _moved(pristine / "media", tmp_path / "media"))
    return tmp_path / "media"


def _moved(there: Path, here: Path) -> Callable[[str, Modality], Dataset]:
    return lambda spec, modality: load_dataset(spec.replace(str(there), str(here)), modality)


def test_a_medium_that_is_gone_is_dropped_and_named_and_the_others_of_its_block_are_made_again(
    pristine: Path, features: FeatureSet, tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = _with_media(pristine, tmp_path, monkeypatch)
    record = next(record for record in features.records() if len(record.rows) == ROWS)
    (manifest,) = read_manifests(features.objects)
    names = {digest: name for name, digest in manifest.digests.items()}
    before = features.rows()
    gone, changed, left = (names[row] for row in record.rows)
    (media / gone).unlink()
    shutil.copy(media / left, media / changed)
    (Path(features.where) / record.chunk).write_bytes(b"")
    done = verify(epalm, features, "--repair")
    assert done.code == 3
    fault = _fault(done, "block")
    assert fault["outcome"] == "dropped" and "epalm extract" in fault["repair"]
    assert f"{media / gone} is not there" in fault["repair"] and f"{media / changed} has changed" in fault["repair"]
    assert before - Cache(tmp_path / "cache").load(features.name).rows() == set(record.rows[:2])
    assert verify(epalm, features).code == 0


@pytest.mark.parametrize("weights", ["gone", "other"])
def test_without_the_encoder_damaged_blocks_are_dropped_and_that_is_said(
    weights: str, pristine: Path, features: FeatureSet, tmp_path: Path, epalm: Epalm
) -> None:
    for path in (Path(features.where) / "recorded.json", *records(features)):
        path.write_text(path.read_text().replace(str(pristine / "vit"), str(tmp_path / "vit")))
    if weights == "other":
        save_small_vit(tmp_path / "vit", depth=3)
    chunks(features)[0].write_bytes(b"")
    done = verify(epalm, features, "--repair")
    assert done.code == 3 and "the encoder is not at hand" in _fault(done, "block")["repair"]
    assert verify(epalm, features).code == 0
    assert len(features.block_names()) == 3


def test_what_other_settings_would_give_is_not_put_in_place_of_a_damaged_block(
    features: FeatureSet, epalm: Epalm
) -> None:
    path = Path(features.where) / "recorded.json"
    for file in (path, *records(features)):  # the augmentation is off now: views 1 and 2 would be view 0
        file.write_text(file.read_text().replace('augmented\\":true', 'augmented\\":false'))
    chunks(features)[0].write_bytes(b"")
    done = verify(epalm, features, "--repair")
    assert done.code == 3 and "other weights or settings" in _fault(done, "block")["repair"]


def test_a_block_whose_rows_are_all_in_others_is_dropped_without_encoding(
    features: FeatureSet, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = max(features.records(), key=lambda record: record.bytes)
    values = read_block(features.objects, record)
    assert write_block(features.objects, record.rows[::-1], record.views, values[::-1], {})
    assert "3 rows stored more than once" not in verify(epalm, features).err  # nine: three views each
    assert "9 rows stored more than once" in verify(epalm, features).err
    (Path(features.where) / record.chunk).write_bytes(b"")
    monkeypatch.setattr("epalm.extract.repair.Stream.go", None)
    assert verify(epalm, features, "--repair").code == 0
    assert record.block not in features.block_names()


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

    before = contents(features)
    with monkeypatch.context() as patched:
        patched.setattr(LocalObjects, "read", failing)
        done = verify(epalm, features, "--repair")
    assert done.code == 3 and _fault(done, "block")["outcome"] == "left"
    assert contents(features) == before


def test_repairs_of_several_damages_at_once_do_not_disturb_each_other(features: FeatureSet, epalm: Epalm) -> None:
    before = contents(features)
    swapped(features)
    torn_record(features)
    (Path(features.where) / "zarr.json").write_text("{}")
    assert verify(epalm, features, "--repair").code == 0
    assert contents(features) == before
