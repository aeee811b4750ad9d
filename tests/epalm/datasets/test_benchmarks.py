"""Each benchmark's published files become exactly these samples, with media where they lie."""

from dataclasses import replace
from pathlib import Path

import pytest

from epalm.datasets import from_anywhere, load_dataset
from epalm.datasets.benchmarks import benchmarks
from epalm.datasets.generic import agreed_scores
from epalm.samples import Modality, Sample, Task
from tests.benchmark_files import FORMS, TEN, write_form

SCORES = {"yes": 1.0, "no": 0.9, "maybe": 0.6, "a cat": 0.3}  # of TEN: four, three, two and one of ten people
TRAIN_9, VAL_262148 = "train2014/COCO_train2014_000000000009.jpg", "val2014/COCO_val2014_000000262148.jpg"
_MODALITIES = {".jpg": Modality.IMAGE, ".mp4": Modality.VIDEO, ".avi": Modality.VIDEO, ".wav": Modality.AUDIO}


def _qa(
    name: str,
    split: str,
    media: str,
    prompt: str,
    answers: dict[str, float] | str | None = None,
    raw: list[str] | tuple[()] = (),
    types: tuple[str | None, str | None] = (None, None),
    unanswerable: bool = False,
) -> Sample:
    scores = {answers: 1.0} if isinstance(answers, str) else answers or {}
    modality = _MODALITIES[media[-4:]]
    return Sample(name, modality, media, Task.QA, split, prompt, scores, tuple(raw), (), *types, unanswerable)


def _caption(name: str, split: str, media: str, *references: str) -> Sample:
    return Sample(name, _MODALITIES[media[-4:]], media, Task.CAPTION, split, references=references)


_IS, _WHAT = ("is it", "yes/no"), ("what is", "other")
_KINDS = ("a beep", "two beeps", "it beeps", "beep", "beeping")
_TEST_PICTURE, _CLIPS = "test2015/COCO_test2015_000000000001.jpg", "videos/all"
EXPECTED = {
    "vqa-v2/official": [
        _qa("9000", "train", TRAIN_9, "Is it?", SCORES, TEN, _IS),
        _qa("9001", "train", TRAIN_9, "Or?", "no", ["no"] * 10, _IS),
        _qa("262148000", "val", VAL_262148, "Who is it?", {}, [""] * 10, ("none of the above", "yes/no"), True),
        _qa("1000", "test-dev", _TEST_PICTURE, "Is it?"),
        _qa("1000", "test", _TEST_PICTURE, "Is it?"),
    ],
    "vqa-v2/karpathy": [
        _qa("9000", "train", TRAIN_9, "What is it?", {"net": 1.0, "web": 0.3}, types=_WHAT),
        _qa("9001", "val", VAL_262148, "What is it?", "net", types=_WHAT),
        _qa("262148000", "test", VAL_262148, "What is it?", types=_WHAT, unanswerable=True),
    ],
    "gqa/official": [
        _qa("02930152", "train", "images/2354786.jpg", "What color is it?", "sky", types=("query", None)),
        _qa("02930153", "train", "images/n161313.jpg", "What color is it?", "red", types=("query", None)),
        _qa("201307251", "test", "images/n161313.jpg", "What color is it?", "blue", types=("query", None)),
        _qa("201971873", "submission", "images/n161313.jpg", "What color is it?", types=("query", None)),
    ],
    "gqa/list": [
        _qa("07333408", "train", "images/2354786.jpg", "Is it?", "no"),
        _qa("20130725", "test", "images/n161313.jpg", "Is it?", "yes"),
    ],
    "coco-caption/karpathy": [
        _caption("262148", "train", VAL_262148, "A cat sits.", "a cat"),
        _caption("9", "train", TRAIN_9, "A dog."),
        _caption("262149", "test", "val2014/COCO_val2014_000000262149.jpg", "A cow.", "a cow stands"),
    ],
    "coco-caption/official-2014": [
        _caption("9", "train", TRAIN_9, "A dog.", "a dog"),
        _caption("262148", "val", VAL_262148, "A cat."),
    ],
    "coco-caption/official-2017": [_caption("9", "train", "train2017/000000000009.jpg", "A dog.", "A dog.")],
    "ok-vqa/official": [
        _qa("95", "train", TRAIN_9, "What is it for?", SCORES, TEN, ("Vehicles", "yes/no")),
        _qa("2971475", "test", VAL_262148, "What is it for?", SCORES, TEN, ("other", "yes/no")),
    ],
    "a-okvqa/official": [
        _qa("22Mex", "train", "train2017/000000000009.jpg", "What is it?", SCORES, TEN),
        _qa("22jbM", "val", "val2017/000000262148.jpg", "What is it?", SCORES, TEN),
        _qa("22jbN", "val", "val2017/000000262148.jpg", "What is it?"),
        _qa("2eQTm", "test", "test2017/000000000001.jpg", "What is it?"),
    ],
    "textvqa/official": [
        _qa("34602", "train", "train_images/0054c91397f2fe05.jpg", "what is the brand?", SCORES, TEN),
        _qa("34603", "train", "train_images/0054c91397f2fe05.jpg", "what is the brand?", SCORES, TEN),
        _qa("34602", "val", "train_images/003a8ae2ef43b901.jpg", "what is the brand?", SCORES, TEN),
        _qa("34602", "test", "test_images/16e8e7d4f5f6cd8d.jpg", "what is the brand?"),
    ],
    "textcaps/official": [
        _caption("0054c91397f2fe05", "train", "train_images/0054c91397f2fe05.jpg", "a b", "a c"),
        _caption("003a8ae2ef43b901", "val", "train_images/003a8ae2ef43b901.jpg", "a d"),
    ],
    "msrvtt-qa/official": [
        _qa("0", "train", "videos/video0.mp4", "what moves?", "dog"),
        _qa("1", "train", "videos/video0.mp4", "what moves?", "cat"),
        _qa("9", "val", "videos/video1.mp4", "what moves?", "ox"),
        _qa("5", "test", "videos/video7010.mp4", "what moves?", "ox"),
    ],
    "msrvtt-qa/list": [
        _qa("1", "train", f"{_CLIPS}/video0.mp4", "What is it?", "dog", types=_WHAT),
        _qa("msrvtt_vqa_test:1", "test", f"{_CLIPS}/video7010.mp4", "who?", "man", types=(None, "who")),
    ],
    "msvd-qa/official": [
        _qa("0", "train", "YouTubeClips/-4wsuPCjDBc_5_15.avi", "what moves?", "dog"),
        _qa("4", "test", "YouTubeClips/_UqnaMwkFF4_3_9.avi", "what moves?", "cow"),
    ],
    "msvd-qa/list": [
        _qa("1", "train", f"{_CLIPS}/-4wsuPCjDBc_5_15.avi", "What is it?", "dog", types=_WHAT),
        _qa("1", "test", f"{_CLIPS}/_UqnaMwkFF4_3_9.avi", "What is it?", "cow", types=_WHAT),
    ],
    "msrvtt-caption/official": [
        _caption("video0", "train", "videos/video0.mp4", "a 1 moves video0", "a 2 moves video0"),
        _caption("video6513", "val", "videos/video6513.mp4", "a 1 moves video6513", "a 2 moves video6513"),
        _caption("video7010", "test", "videos/video7010.mp4", "a 1 moves video7010", "a 2 moves video7010"),
    ],
    "msrvtt-caption/list": [
        _caption("video0", "train", f"{_CLIPS}/video0.mp4", "a dog", "dogs"),
        _caption("video7010", "test", f"{_CLIPS}/video7010.mp4", "a cow", "cows"),
    ],
    "audiocaps/official": [
        _caption("r1nicOVtvkQ_130", "train", "audio/train/r1nicOVtvkQ_130.wav", "A woman talks, nearby"),
        _caption("-1nilez17Dg_30", "train", "audio/train/-1nilez17Dg.wav", "A dog"),
        _caption("vfY_TJq7n_U_130", "val", "audio/val/YvfY_TJq7n_U.wav", "Ducks", "Ducks quack"),
        _caption("7fmOlUlwoNg_0", "test", "audio/test/7fmOlUlwoNg_0_10.wav", "A bell", "A bell rings"),
    ],
    "clotho/official": [
        _caption("Distorted AM Radio noise.wav", "train", "development/Distorted AM Radio noise.wav", *_KINDS),
        _caption("01 rumble.wav", "val", "validation/01 rumble.wav", *_KINDS),
        _caption("Santa, Motor.wav", "test", "evaluation/Santa, Motor.wav", *_KINDS),
    ],
}


@pytest.mark.parametrize("spec", FORMS)
def test_published_files_become_these_samples(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_form(spec, tmp_path / "data")
    dataset = load_dataset(f"{spec.partition('/')[0]}:{root}")
    assert list(dataset.samples) == EXPECTED[spec]
    assert dataset.root == root
    assert all(dataset.locate(sample.media).path.is_file() for sample in dataset.samples)
    assert not capsys.readouterr().err  # nothing is amiss
    assert load_dataset(f"{spec}:{root}", benchmarks()[spec.partition("/")[0]].modality).samples == dataset.samples
    monkeypatch.chdir(tmp_path)
    assert from_anywhere(f"{spec}:data") == f"{spec}:{root}"


def test_every_form_is_tried() -> None:
    assert set(FORMS) == {f"{one.name}/{form.name}" for one in benchmarks().values() for form in one.forms}


def test_scores_of_answers_are_what_giving_them_would_be_worth() -> None:
    from epalm.evaluate.metrics.answers import vqa_accuracy

    for answers in (TEN, ["a b"] * 9 + ["c"], ["x"] * 3, ["p", "q", "q"], ["x"] * 4 + ["y"]):
        scores = agreed_scores(answers)
        assert all(scores.get(one, 0) == pytest.approx(vqa_accuracy(one, answers), abs=1e-6) for one in answers)


def test_the_official_form_is_read_where_there_are_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("karpathy", "official"):
        write_form(f"vqa-v2/{form}", tmp_path)
    assert list(load_dataset(f"vqa-v2:{tmp_path}").samples) == EXPECTED["vqa-v2/official"]
    assert f"official is read. Others: --data vqa-v2/karpathy:{tmp_path}" in capsys.readouterr().err
    raw = (TEN, ["no"] * 10, [""] * 10)  # from the official annotations
    expected = [replace(s, raw_answers=tuple(ten)) for s, ten in zip(EXPECTED["vqa-v2/karpathy"], raw, strict=True)]
    assert list(load_dataset(f"vqa-v2/karpathy:{tmp_path}").samples) == expected
    assert not capsys.readouterr().err


def test_half_of_the_official_annotations_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("karpathy", "official"):
        write_form(f"vqa-v2/{form}", tmp_path)
    (tmp_path / "v2_mscoco_val2014_annotations.json").unlink()
    assert list(load_dataset(f"vqa-v2/karpathy:{tmp_path}").samples) == EXPECTED["vqa-v2/karpathy"]
    assert "v2_mscoco_train2014_annotations.json alone does not have" in capsys.readouterr().err


def test_of_several_names_the_first_is_read(tmp_path: Path) -> None:
    write_form("msrvtt-caption/list", tmp_path)
    (tmp_path / "msrvtt_caption_train.json").write_text('[{"video": "video0.mp4", "caption": "another"}]')
    assert load_dataset(f"msrvtt-caption:{tmp_path}").samples[0].references == ("another",)


def test_files_lie_in_the_folders_that_people_use(tmp_path: Path) -> None:
    write_form("vqa-v2/official", tmp_path)
    (tmp_path / "annotations").mkdir()
    for path in list(tmp_path.glob("*.json")):
        path.rename(tmp_path / "annotations" / path.name)
    (tmp_path / "coco/images").mkdir(parents=True)
    (tmp_path / "train2014").rename(tmp_path / "coco/images/train2014")
    samples = load_dataset(f"vqa-v2:{tmp_path}").samples
    assert samples[0].media == f"coco/images/{TRAIN_9}"
    assert samples[2].media == VAL_262148


def test_clips_are_found_by_any_of_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_form("audiocaps/official", tmp_path)
    train = root / "audio/train"
    (train / "r1nicOVtvkQ_130.wav").rename(train / "Yr1nicOVtvkQ_130000_140000.flac")
    (train / "-1nilez17Dg.wav").unlink()
    samples = load_dataset(f"audiocaps:{root}").samples
    assert samples[0].media == "audio/train/Yr1nicOVtvkQ_130000_140000.flac"
    assert samples[1].media == "audio/train/-1nilez17Dg.wav"  # where it would be
    warning = capsys.readouterr().err
    assert (
        "1 of 4 media are not there, such as audio/train/-1nilez17Dg.wav" in warning and "--allow-missing 1" in warning
    )
    load_dataset(f"audiocaps:{root}", media_here=False)
    assert not capsys.readouterr().err


def test_clips_of_msvd_may_be_called_by_number(tmp_path: Path) -> None:
    root = write_form("msvd-qa/official", tmp_path)
    (root / "youtube_mapping.txt").unlink()
    (root / "YouTubeClips/-4wsuPCjDBc_5_15.avi").rename(root / "YouTubeClips/vid1.avi")
    assert load_dataset(f"msvd-qa:{root}").samples[0].media == "YouTubeClips/vid1.avi"


def test_msrvtt_in_two_files(tmp_path: Path) -> None:
    import json

    root = write_form("msrvtt-caption/official", tmp_path)
    whole = json.loads((root / "MSRVTT_data.json").read_text())
    (root / "MSRVTT_data.json").unlink()
    for name, wanted in (("train_val", ("train", "validate")), ("test", ("test",))):
        videos = [video for video in whole["videos"] if video["split"] in wanted]
        sentences = [s for s in whole["sentences"] if s["video_id"] in {video["video_id"] for video in videos}]
        (root / f"{name}_videodatainfo.json").write_text(json.dumps({"sentences": sentences, "videos": videos}))
    assert list(load_dataset(f"msrvtt-caption:{root}").samples) == EXPECTED["msrvtt-caption/official"]
