"""Repair: whatever is damaged is found and named, and comes back byte for byte from media and encoder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epalm.cache import blocks
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.errors import CacheError
from epalm.extract.encoders import EncoderChoice, build_encoder
from epalm.extract.pipeline import LocalEngine, extract_features
from epalm.samples import Modality
from tests.conftest import Done, Epalm, save_small_vit

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


def _chunks(features: FeatureSet) -> list[Path]:
    return [Path(features.where) / record.chunk for record in features.records()]


def _records(features: FeatureSet) -> list[Path]:
    return sorted((Path(features.where) / "records").glob("*.json"))


def _missing(features: FeatureSet) -> None:
    _chunks(features)[0].unlink()


def _folder_gone(features: FeatureSet) -> None:
    shutil.rmtree(_chunks(features)[1].parent)


def _empty(features: FeatureSet) -> None:
    _chunks(features)[0].write_bytes(b"")


def _truncated(features: FeatureSet) -> None:
    chunk = _chunks(features)[0]
    chunk.write_bytes(chunk.read_bytes()[:-40])


def _zero_tailed(features: FeatureSet) -> None:
    chunk = _chunks(features)[1]
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-40] + b"\0" * 40)


def _bit_flipped(features: FeatureSet) -> None:
    chunk = _chunks(features)[0]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)


def _checksum_flipped(features: FeatureSet) -> None:
    chunk = _chunks(features)[0]
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _swapped(features: FeatureSet) -> None:
    same = [r for r in features.records() if r.shape == (ROWS, VIEWS + 1, *r.shape[2:])]
    one, other = (Path(features.where) / record.chunk for record in same[:2])
    one.rename(one.with_suffix(".aside"))
    other.rename(one)
    one.with_suffix(".aside").rename(other)


def _torn_description(features: FeatureSet) -> None:
    record = features.records()[0]
    (Path(features.where) / record.metadata).write_text('{"shape": [3, ')


def _every_block(features: FeatureSet) -> None:
    for chunk in _chunks(features):
        chunk.write_bytes(chunk.read_bytes()[::-1])


def _not_numbers(features: FeatureSet) -> None:
    record = max(features.records(), key=lambda record: record.bytes)
    values = blocks.read_block(features.objects, record).copy()
    values[1] = np.nan
    features.drop(record.block)
    assert blocks.write_block(features.objects, record.rows, record.views, values, record.written)


def _torn_record(features: FeatureSet) -> None:
    path = _records(features)[0]
    path.write_bytes(path.read_bytes()[:100])


def _empty_records(features: FeatureSet) -> None:
    for path in _records(features):
        path.write_bytes(b"")


def _contradicting_record(features: FeatureSet) -> None:
    path = _records(features)[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "bytes": 1}))


def _lost_record(features: FeatureSet) -> None:
    _records(features)[0].unlink()


def _torn_recorded(features: FeatureSet) -> None:
    (Path(features.where) / "recorded.json").write_text('{"torch":')
    _chunks(features)[0].write_bytes(b"")


def _torn_group(features: FeatureSet) -> None:
    (Path(features.where) / "blocks" / "zarr.json").write_text("")


DAMAGES = [
    _missing,
    _folder_gone,
    _empty,
    _truncated,
    _zero_tailed,
    _bit_flipped,
    _checksum_flipped,
    _swapped,
    _torn_description,
    _every_block,
    _not_numbers,
    _torn_record,
    _empty_records,
    _contradicting_record,
    _lost_record,
    _torn_recorded,
    _torn_group,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damage_is_found_named_never_read_and_repaired_to_the_same_bytes(
    damage: Callable[[FeatureSet], None], features: FeatureSet, epalm: Epalm
) -> None:
    reader = features.open()
    whole, before = reader.gather(np.arange(len(reader.digests))), contents(features)
    damage(features)
    if damage is not _lost_record:
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
