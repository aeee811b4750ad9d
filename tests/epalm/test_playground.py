"""The built-in world: the same files for the same seed, splits that share no scene, guessing that stays low."""

import json
from collections import Counter
from pathlib import Path

import pytest

from epalm.datasets.generic import read_samples
from epalm.errors import UsageError
from epalm.evaluate.scoring import chance_predictions
from epalm.fingerprint import digest_file
from epalm.playground.generate import generate_playground
from epalm.playground.world import ATTRIBUTES, SPLITS, captions, draw_scenes, scenes
from epalm.samples import Modality, Sample, Task
from pretraining.corpus import questions


def _bytes(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): digest_file(path) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("modality", Modality)
def test_the_same_world_has_the_same_bytes(modality: Modality, tmp_path: Path) -> None:
    counts = (5, 2, 2)
    first, second = (_bytes(generate_playground(tmp_path / name, modality, counts=counts)) for name in "ab")
    assert first == second


def test_a_complete_folder_is_left_alone_and_another_size_replaces_it(tmp_path: Path) -> None:
    root = generate_playground(tmp_path / "world", Modality.AUDIO, counts=(3, 1, 1))
    kept = root / "train/00000.wav"
    before = kept.stat().st_mtime_ns
    generate_playground(root, Modality.AUDIO, counts=(3, 1, 1))
    assert kept.stat().st_mtime_ns == before
    generate_playground(root, Modality.AUDIO, counts=(4, 1, 1))
    assert len(list((root / "train").iterdir())) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world"]  # no drafts are left


def test_a_folder_of_the_users_own_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not the playground's"):
        generate_playground(tmp_path, Modality.IMAGE, counts=(1, 1, 1))
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("modality", Modality)
def test_splits_share_no_scene_and_cover_every_value(modality: Modality) -> None:
    parts = [set(scenes(modality, split)) for split in SPLITS]
    assert set().union(*parts) == set(scenes(modality))
    assert sum(map(len, parts)) == len(scenes(modality))
    for part in parts[::2]:  # train and test
        for attribute, values in ATTRIBUTES[modality].items():
            assert {scene[attribute] for scene in part} == set(values)


@pytest.mark.parametrize("modality", Modality)
def test_every_medium_has_each_question_and_its_captions(modality: Modality, worlds: dict[Modality, Path]) -> None:
    samples = read_samples(worlds[modality] / "samples.jsonl")
    assert len({sample.id for sample in samples}) == len(samples)
    per_medium = Counter(sample.media for sample in samples)
    assert set(per_medium.values()) == {len(ATTRIBUTES[modality]) + 1}
    assert all((worlds[modality] / sample.media).is_file() for sample in samples)
    assert all(len(sample.references) == 3 for sample in samples if sample.task is Task.CAPTION)


@pytest.mark.parametrize("modality", Modality)
def test_guessing_without_the_media_stays_low(modality: Modality) -> None:
    import random

    def asked(split: str, count: int) -> list[Sample]:
        return [
            Sample(f"{n}/{a}", modality, str(n), Task.QA, split, prompt=question, answers={answer: 1.0})
            for n, scene in enumerate(draw_scenes(modality, split, count, random.Random(0)))
            for a, question, answer in questions(scene)
        ]

    test = asked("test", 200)
    guesses = chance_predictions(asked("train", 600), test)
    right = sum(guess.text in sample.answers for guess, sample in zip(guesses, test, strict=True))
    assert right / len(test) < 0.4


@pytest.mark.parametrize("modality", Modality)
def test_a_caption_names_every_value(modality: Modality) -> None:
    for scene in scenes(modality)[::7]:
        for caption in captions(scene):
            assert set(scene.values) <= set(caption.split())


def test_the_marker_names_what_was_drawn(worlds: dict[Modality, Path]) -> None:
    marker = json.loads((worlds[Modality.VIDEO] / "playground.json").read_text())
    assert (marker["modality"], marker["media"]) == ("video", [24, 6, 8])
