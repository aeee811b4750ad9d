"""Training and scoring where the media are not, or where the cache can only be read. No name is taken on trust."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epalm.cache.manifest import read_manifests
from epalm.cache.objects import durable
from epalm.cache.store import Cache
from epalm.datasets import from_anywhere, load_dataset
from epalm.errors import UsageError
from epalm.samples import Modality, _media_root
from epalm.train.data.features import CachedFeatures
from tests.conftest import Done, Epalm, save_small_vit
from tests.small_disk import make_read_only, small_disk
from tests.trials import TEST, TRAIN, Trial, latest_tensors

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=2", "--set", "optim.batch_size=4")
QUESTIONS = ("--set", 'data.tasks=["qa"]')  # whose scores need no Java


def _train(trial: Trial, name: str, *words: object) -> Done:
    places = ("-m", "image", "--data", trial.world, "--cache", trial.cache, "--run", name)
    return trial.epalm("train", "--from-cache", *places, *SHORT, *words)


def _trained(name: str) -> bytes:
    return latest_tensors(Path(f".epalm/runs/{name}"))


@pytest.mark.parametrize("gone", ["files", "pulled", "root"])
def test_without_the_media_training_and_scores_are_the_same(gone: str, trial: Trial, tmp_path: Path) -> None:
    with_media = _train(trial, "with")
    assert with_media.code == 0 and "not here" not in with_media.err
    if gone == "pulled":
        assert trial.epalm("cache", "push", "image", tmp_path / "shared", "--cache", trial.cache).code == 0
        trial.cache = tmp_path / "pulled"
        pulled = trial.epalm("cache", "pull", tmp_path / "shared", "--cache", trial.cache)
        assert pulled.code == 0 and "next: epalm train --from-cache" in pulled.err
    if gone == "root":
        (tmp_path / "data").mkdir()
        data = (trial.world / "samples.jsonl").rename(tmp_path / "data/samples.jsonl")
        shutil.rmtree(trial.world)
        with pytest.raises(UsageError, match="is not a folder"):  # an extraction needs it
            load_dataset(f"{data}:{trial.world}")
        trial.world = Path(f"{data}:{trial.world}")
    else:
        for path in trial.media:
            path.unlink()
    without = _train(trial, "without")
    assert without.code == 0, without.err
    assert f"{TRAIN} media are not here: their rows are found by the names of the extraction" in without.err
    assert "canary: not checked, the media are not here" in without.err
    assert _trained("without") == _trained("with")
    scored = trial.epalm("score", "--run", "without", "--cache", trial.cache, "--plan", "--json")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["media"]["sourceless"] == TEST


def test_scores_are_the_same_without_the_media(trial: Trial) -> None:
    assert _train(trial, "a", *QUESTIONS).code == 0
    scores = []
    for _ in range(2):
        scored = trial.epalm("score", "--cache", trial.cache, "--json")
        assert scored.code == 0, scored.err
        scores.append(json.loads(scored.out)["tasks"])
        shutil.rmtree(Path(".epalm/runs/a/predictions"))
        for path in trial.media:
            path.unlink(missing_ok=True)
    assert f"{TEST} media are not here" in scored.err
    assert scores[0] == scores[1]


def test_a_file_that_has_changed_is_a_hole_however_it_is_called(trial: Trial) -> None:
    changed, missing = trial.media[:2]
    Image.new("RGB", (9, 9), "red").save(changed)
    missing.unlink()
    refused = _train(trial, "a")
    assert refused.code == 1 and "--allow-missing 1" in refused.err
    assert f"{changed.relative_to(trial.world)}: the file has changed since it was extracted" in refused.err
    assert missing.name not in refused.err
    assert _train(trial, "b", "--allow-missing", 1).code == 0
    changed.unlink()  # now only its name is there, and that is known
    assert _train(trial, "c").code == 0


def test_what_is_not_a_file_is_not_taken_for_one_that_is_gone(trial: Trial) -> None:
    """A folder in its place, or a link that leads out of the data root."""
    one, other = trial.media[:2]
    one.unlink()
    one.mkdir()
    other.unlink()
    other.symlink_to("/etc/hostname")
    refused = _train(trial, "a")
    assert refused.code == 1 and "--allow-missing 2" in refused.err
    assert one.name in refused.err and other.name in refused.err


def _collection(folder: Path, first: int) -> Path:
    """Pictures called alike in every collection, and `samples.jsonl` beside them."""
    folder.mkdir()
    lines = []
    for number in range(4):
        pixels = np.random.default_rng(first + number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        sample = {"modality": "image", "media": f"{number}.png", "task": "caption", "split": "train"}
        lines.append(json.dumps({**sample, "references": ["noise"]}))
    (folder / "samples.jsonl").write_text("\n".join(lines))
    return folder


def _enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in another folder, as no process of epalm does: what it knows of "." is forgotten."""
    monkeypatch.chdir(folder)
    _media_root.cache_clear()


def _features(cache: Path, data: str) -> CachedFeatures:
    store = Cache(cache)
    (features,) = store.sets()
    dataset = load_dataset(data, Modality.IMAGE)
    return CachedFeatures(store, features.name, dataset, dataset.samples)


def test_data_sets_that_are_called_alike_are_not_mixed_up(
    tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both typed `--data samples.jsonl`, in their folders, into one cache; in both a `0.png` of its own."""
    weights, cache = save_small_vit(tmp_path / "vit", depth=2), tmp_path / "cache"
    folders = [_collection(tmp_path / name, 10 * number) for number, name in enumerate("ab")]
    expected = []
    for folder in folders:
        _enter(folder, monkeypatch)
        places = ("--data", "samples.jsonl", "--weights", weights, "--cache", cache)
        assert epalm("extract", "-m", "image", *places, "--layers", "all", "--workers", 0).code == 0
        source = _features(cache, "samples.jsonl")
        expected.append(source.gather(load_dataset("samples.jsonl").samples))
    assert not np.array_equal(expected[0], expected[1])
    (tmp_path / "c").mkdir()
    shutil.copy(folders[0] / "samples.jsonl", tmp_path / "c")
    for folder, rows in zip(folders, expected, strict=True):
        for path in folder.glob("*.png"):
            path.unlink()
        _enter(folder, monkeypatch)
        for data in ("samples.jsonl", "./samples.jsonl", str(folder), f"{folder}/samples.jsonl:{folder}"):
            source = _features(cache, data)
            if source.sourceless == 4:
                assert np.array_equal(source.gather(load_dataset(data).samples), rows), data
            else:  # another way to name it: of two collections' names none is guessed
                assert set(source.missing) == {"0.png", "1.png", "2.png", "3.png"}
                assert {one.reason for one in source.missing.values()} == {"absent"}
        assert _features(cache, "samples.jsonl").sourceless == 4
    _enter(tmp_path / "c", monkeypatch)
    refused = epalm("train", "--from-cache", "-m", "image", "--data", "samples.jsonl", "--cache", cache, *SHORT)
    assert refused.code == 1 and "its name stands for several media" in refused.err


def test_a_data_set_has_one_name_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _collection(tmp_path / "a", 0)
    monkeypatch.chdir(folder)
    shard = "shards-{000..009}.tar"
    assert from_anywhere("samples.jsonl") == from_anywhere("../a/samples.jsonl") == str(folder / "samples.jsonl")
    assert from_anywhere(".") == str(folder)
    assert from_anywhere("samples.jsonl:.") == f"{folder / 'samples.jsonl'}:{folder}"
    assert from_anywhere(shard) == f"{folder}/{shard}"
    assert from_anywhere("playground") == "playground"
    for spec in ("samples.jsonl", ".", "samples.jsonl:."):
        monkeypatch.chdir(folder)
        there = from_anywhere(spec)
        samples = load_dataset(spec).samples
        monkeypatch.chdir("/")
        assert from_anywhere(there) == there
        assert load_dataset(there).samples == samples


def test_names_are_kept_under_what_any_folder_may_call_them(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trial.world)
    trial.world = Path()
    trial.extract()
    (features,) = Cache(trial.cache).sets()
    assert str(Path.cwd()) in {manifest.data for manifest in read_manifests(features.objects)}


@pytest.fixture
def read_only(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """The cache on a disk that can only be read."""
    monkeypatch.setattr(durable, "_MARGIN", 0)
    with small_disk(tmp_path / "disk", size=2**22) as disk:
        shutil.copytree(trial.cache, disk / "cache")
        trial.cache = disk / "cache"
        assert trial.extract() == (TRAIN + TEST, 0)
        make_read_only(disk)
        yield trial


@pytest.mark.parametrize("media", ["here", "gone"])
def test_a_cache_that_can_only_be_read_serves(media: str, read_only: Trial) -> None:
    trial = read_only
    if media == "gone":
        for path in trial.media:
            path.unlink()
    stages: list[tuple[str, ...]] = [("train", "--from-cache", *SHORT, *QUESTIONS, "--run", "a")]
    stages += [("score", "--run", "a", "--metrics", "exact match")] if media == "here" else []
    for words in stages:
        done = trial.epalm(*words, "--cache", trial.cache)
        assert done.code == 0, done.err
        assert not [line for line in done.err.splitlines() if "warning" in line and " steps " not in line]
    for asked in (("ls",), ("info", "image"), ("verify",), ("ledger", "image"), ("why", "image")):
        done = trial.epalm("cache", *asked, "--cache", trial.cache)
        assert done.code == 0 and "Traceback" not in done.err, done.err
