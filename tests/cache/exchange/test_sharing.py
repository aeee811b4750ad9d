"""Feature sets that others made: pushed, pulled and trained on as it is typed, with and without the media."""

import json
from pathlib import Path

import pytest

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Manifest, write_manifest
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.samples import Modality
from epalm.train.data.features import CachedFeatures
from tests.cache.test_feature_set import SPEC
from tests.conftest import Epalm
from tests.feature_sets import BLOCKS, Block, contents, digest, make_set, require_same, stored_bytes, wider


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path / "here", BLOCKS)


@pytest.fixture(params=["folder", "s3"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where another cache is."""
    return str(tmp_path / "there" if request.param == "folder" else request.getfixturevalue("s3_url") + "/cache")


def test_a_set_that_was_pulled_serves_where_the_media_are_not(
    features: FeatureSet, there: str, tmp_path: Path, epalm: Epalm
) -> None:
    lines = [{"modality": "image", "media": f"{n}.png", "task": "caption", "split": "train"} for n in range(14)]
    data = tmp_path / "elsewhere" / "samples.jsonl"
    data.parent.mkdir()
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(features.objects, Manifest(str(data), {f"{n}.png": digest(n) for n in range(14)}))
    Cache(tmp_path / "here").remember("image", features.name, SPEC.layers[1:], str(data))
    pushed = epalm("cache", "push", "image", there, "--cache", tmp_path / "here")
    assert pushed.code == 0, pushed.err
    assert Cache(there).latest("image").data == str(data)
    pulled = epalm("cache", "pull", there, "--cache", tmp_path / "mine", "--json")
    assert pulled.code == 0 and f"--data {data}" in pulled.err, pulled.err
    cache = Cache(tmp_path / "mine")
    latest = cache.latest("image")
    assert (latest.set, latest.layers, latest.data) == (features.name, SPEC.layers[1:], str(data))
    dataset = load_dataset(latest.data, Modality.IMAGE)
    source = CachedFeatures(cache, latest.set, dataset, dataset.samples, latest.layers)
    assert (source.missing, source.sourceless) == ({}, 14)
    gathered = source.gather(dataset.samples)
    expected = contents(features)
    assert [row.tobytes() for row in gathered] == [expected[digest(n), 0][SPEC.row_bytes // 3 :] for n in range(14)]


def test_push_and_pull_as_they_are_typed(epalm: Epalm, features: FeatureSet, there: str, tmp_path: Path) -> None:
    here, mine = ("--cache", tmp_path / "here"), ("--cache", tmp_path / "mine")
    planned = epalm("cache", "push", "image", there, "--plan", *here, "--json")
    assert planned.code == 0
    assert json.loads(planned.out)["blocks"] == 4 and json.loads(planned.out)["bytes"] == stored_bytes(features)
    assert Cache(there).set_names() == [] and not (tmp_path / "there").exists()
    assert epalm("cache", "pull", there, *mine).err.count("error: ") == 1
    assert json.loads(epalm("cache", "push", "image", there, *here, "--json").out)["blocks"] == 4
    again = json.loads(epalm("cache", "push", "image", there, *here, "--json").out)
    assert (again["blocks"], again["there"], again["refused"]) == (0, 4, [])
    make_set(there, [Block([1])], wider())
    several = epalm("cache", "pull", there, *mine)
    assert several.code == 1 and features.name in several.err and wider().name in several.err
    assert epalm("cache", "pull", there, features.name[:-1], "--plan", *mine).code == 0
    assert not (tmp_path / "mine").exists()
    assert epalm("cache", "pull", there, features.name[:-1], *mine).code == 0
    require_same(features, tmp_path / "mine")
    wrong = epalm("cache", "push", "image", "nothing://x", *here)
    assert wrong.code == 1 and wrong.err.count("error: ") == 1
