"""Blocks whose values were deleted are not in the cache: they are made again, wherever the cache lies."""

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epalm.cache.blocks import read_block
from epalm.cache.store import Cache
from tests.conftest import Epalm
from tests.feature_sets import BLOCKS, make_set


@pytest.mark.parametrize("where", ["folder", "memory://"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_set_knows_which_of_its_blocks_are_gone(where: str, whole: bool, tmp_path: Path) -> None:
    features = make_set(tmp_path / "cache" if where == "folder" else f"{where}{uuid.uuid4()}", BLOCKS)
    assert features.lost_blocks() == []
    record = features.records()[1]
    if whole:
        features.objects.delete_below(record.chunk.rpartition("/")[0])
    else:
        features.objects.delete(record.chunk)
    assert features.lost_blocks() == [record]


def test_a_block_that_another_process_has_made_again_is_not_dropped(tmp_path: Path) -> None:
    features = make_set(tmp_path / "cache", BLOCKS[:1])
    (record,), values = features.records(), read_block(features.objects, features.records()[0])
    features.objects.delete_below(record.chunk.rpartition("/")[0])
    one, other = (Cache(tmp_path / "cache").load(features.name) for _ in range(2))
    assert one.lost_blocks() == other.lost_blocks() == [record]
    assert one.drop(record.block, record)
    assert not other.drop(record.block, record)  # nor one that is just being made again
    assert one.write_block(record.rows, values, record.views) == len(record.rows)
    assert not other.drop(record.block, record)
    assert other.rows() == set(record.rows) and other.verify() == []


def test_media_of_deleted_blocks_are_encoded_again(
    tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    words = ["extract", "-m", "image", "--weights", "playground", "--workers", "0", "--data", "photos"]
    words += ["--block-rows", "2", "--json"]
    assert json.loads(epalm(*words).out)["encoded"] == 5
    blocks = sorted(path for path in Path(".epalm/cache").glob("sets/*/blocks/*") if path.is_dir())
    assert len(blocks) == 3
    shutil.rmtree(blocks[0])
    next(blocks[1].glob("c.*")).write_bytes(b"")
    plan = json.loads(epalm(*words, "--plan").out)
    assert plan["lost_blocks"] == 2 and plan["in_cache"] + plan["to_encode"] == 5 and 3 <= plan["to_encode"] <= 4
    assert len(list(Path(".epalm/cache").glob("sets/*/records/*.json"))) == 3  # a plan writes nothing
    done = epalm(*words)
    assert json.loads(done.out)["encoded"] == plan["to_encode"] and "2 blocks of image-vit" in done.err
    again = json.loads(epalm(*words).out)
    assert (again["hits"], again["encoded"]) == (5, 0)
    assert epalm("cache", "verify").code == 0
