"""Wrong or partial files of a benchmark are one message that names file, entry or line, and key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epalm.datasets import load_dataset
from epalm.errors import EpalmError, MediaError, UsageError
from tests.benchmark_files import FORMS, write_form
from tests.conftest import Epalm

Change = Callable[[Any], Any]


def _in(*path: Any, to: Any = None) -> Change:
    """Sets what lies there, or removes it."""

    def change(value: Any) -> Any:
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        if to is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = to
        return value

    return change


def _again(*path: Any) -> Change:
    """Repeats the first entry of the list that lies there."""

    def change(value: Any) -> Any:
        entries = value
        for key in path:
            entries = entries[key]
        entries.append(entries[0])
        return value

    return change


QUESTIONS, ANSWERS = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"
FAULTS: list[tuple[str, str, Change, str]] = [
    ("vqa-v2/official", QUESTIONS, _in("questions", 1, "image_id"), "entry 2 of 'questions': missing key 'image_id'"),
    ("vqa-v2/official", QUESTIONS, _in("questions", 0, "image_id", to="9x"), "'image_id' is '9x', not a number"),
    ("vqa-v2/official", QUESTIONS, _in("questions", 0, "question", to=[]), "'question' is [], not a text"),
    ("vqa-v2/official", QUESTIONS, _in("questions", 0, "question_id", to=7), "question_id 7 has no annotation in"),
    ("vqa-v2/official", QUESTIONS, _in("questions", to=[]), "'questions' is missing or empty"),
    ("vqa-v2/official", QUESTIONS, _in("questions", 1), "1 more: question_id 9001"),
    ("vqa-v2/official", QUESTIONS, _again("questions"), "entry 3 of 'questions': question_id 9000"),
    ("vqa-v2/official", ANSWERS, _again("annotations"), "entry 3 of 'annotations': question_id 9001 is used twice"),
    ("vqa-v2/official", ANSWERS, _in("annotations", 0, "answers", 3, "answer"), "'answers' must be a list of objects"),
    ("vqa-v2/official", ANSWERS, _in("annotations", 0, "answers", to=[]), "entry 1 of 'annotations': 'answers' must"),
    ("vqa-v2/official", ANSWERS, _in("annotations", 0, to=5), "entry 1 of 'annotations': 5 in place of an object"),
    ("vqa-v2/karpathy", "karpathy_val.json", _in(0, "img_id", to="../../etc"), "'img_id' is '../../etc'"),
    ("vqa-v2/karpathy", "karpathy_val.json", _in(0, "img_id", to="COCO_val2014_1"), "no image id such as"),
    ("vqa-v2/karpathy", "karpathy_val.json", _in(0, "label", to={"net": 3}), "'label' scores 'net' with 3"),
    ("vqa-v2/karpathy", "karpathy_val.json", _in(0, "label", to=["net"]), "'label' must be an answer"),
    ("vqa-v2/karpathy", "karpathy_train.json", _again(), "entry 2: id '9000' is used twice in split 'train'"),
    ("gqa/official", "train_balanced_questions.json", _in("02930152", "answer"), "'02930152': missing key 'answer'"),
    ("gqa/official", "train_balanced_questions.json", _in("02930152", "imageId", to="a/b"), "'imageId' is 'a/b'"),
    ("gqa/official", "train_balanced_questions.json", lambda _: {}, "holds no entry"),
    ("gqa/list", "train.json", lambda whole: {"rows": whole}, "a list is missing or empty"),
    ("gqa/list", "train.json", _in(0, "sent", to=" "), "'sent' is empty"),
    ("coco-caption/karpathy", "dataset_coco.json", _in("images", 0, "split", to="x"), "'split' is 'x', not one of"),
    ("coco-caption/karpathy", "dataset_coco.json", _in("images", 1, "filename", to="http://x"), "'filename' is 'http:"),
    ("coco-caption/karpathy", "dataset_coco.json", _in("images", 1, "filepath", to="/etc"), "'filepath' is '/etc'"),
    ("coco-caption/karpathy", "dataset_coco.json", _in("images", 1, "sentences", 0, "raw"), "a text 'raw' in each"),
    ("coco-caption/official-2017", "captions_train2017.json", _in("annotations", 1, "image_id", to=4), "image_id 4 is"),
    (
        "coco-caption/official-2017",
        "captions_train2017.json",
        _in("annotations", 1, "caption"),
        "missing key 'caption'",
    ),
    ("ok-vqa/official", "mscoco_val2014_annotations.json", _in("annotations", 0, "answers"), "missing key 'answers'"),
    ("a-okvqa/official", "aokvqa_v1p0_val.json", _in(0, "direct_answers"), "entry 1: missing key 'direct_answers'"),
    (
        "a-okvqa/official",
        "aokvqa_v1p0_val.json",
        _in(0, "direct_answers", to=[3]),
        "'direct_answers' must be a list of texts",
    ),
    ("textvqa/official", "TextVQA_0.5.1_val.json", _in("data", 0, "answers"), "entry 1 of 'data': missing key 'answ"),
    ("textcaps/official", "TextCaps_0.1_val.json", _in("data", 0, "image_id", to=".."), "'image_id' is '..', not a"),
    ("msrvtt-qa/official", "test_qa.json", _in(0, "video_id"), "entry 1: missing key 'video_id'"),
    ("msrvtt-qa/list", "msrvtt_vqa_test.json", _in(0, "video", to=[]), "'video' is [], not a text"),
    ("msvd-qa/official", "test_qa.json", _in(0, "video_id", to=7), "vid7 is not in youtube_mapping.txt"),
    ("msrvtt-caption/official", "MSRVTT_data.json", _in("sentences", 0, "video_id", to="v"), "'v' is not among the fi"),
    ("msrvtt-caption/official", "MSRVTT_data.json", _again("videos"), "entry 4 of 'videos': video_id 'video0' is used"),
    ("msrvtt-caption/list", "msrvtt_caption_test.json", _in(0, "caption", to=[1]), "entry 1: 'caption' must be a list"),
]


@pytest.mark.parametrize(("spec", "name", "change", "message"), FAULTS)
def test_a_wrong_entry_is_named(spec: str, name: str, change: Change, message: str, tmp_path: Path) -> None:
    path = write_form(spec, tmp_path) / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UsageError) as caught:
        load_dataset(f"{spec}:{tmp_path}")
    assert str(path) in caught.value.message and message in caught.value.message


@pytest.mark.parametrize(
    ("spec", "name", "old", "new", "message"),
    [
        ("audiocaps/official", "train.csv", "start_time", "start", "row 2: missing key 'start_time'"),
        ("audiocaps/official", "train.csv", ",30,A dog", ",30", "row 3: fewer cells than columns"),
        ("audiocaps/official", "train.csv", ",30,A dog", ",soon,A dog", "row 3: 'start_time' is 'soon', not a number"),
        ("audiocaps/official", "train.csv", ",30,A dog", ",30,", "row 3: missing key 'caption'"),
        ("audiocaps/official", "val.csv", "vfY_TJq7n_U", "../x", "row 2: 'youtube_id' is '../x'"),
        ("clotho/official", "clotho_captions_evaluation.csv", "beeping", "beeping,x", "row 2: more cells than"),
        (
            "clotho/official",
            "clotho_captions_evaluation.csv",
            "Santa, Motor.wav",
            "/etc/passwd",
            "'/etc/passwd', not a",
        ),
        ("msvd-qa/official", "youtube_mapping.txt", "vid1301", "", "line 2: expected a clip and its name"),
        ("msvd-qa/official", "youtube_mapping.txt", "vid1301", "vid1", "line 2: expected a clip and its name, each"),
    ],
)
def test_a_wrong_line_is_named(spec: str, name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write_form(spec, tmp_path) / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError) as caught:
        load_dataset(f"{spec}:{tmp_path}")
    assert str(path) in caught.value.message and message in caught.value.message


@pytest.mark.parametrize("spec", FORMS)
def test_a_file_that_is_cut_off_or_empty_is_one_message(spec: str, tmp_path: Path) -> None:
    root = write_form(spec, tmp_path)
    for name in FORMS[spec][0]:
        path = root / name
        whole = path.read_bytes()
        for part in (whole[: len(whole) * 2 // 3], whole[:1], b"", b"\xff\xfe"):
            path.write_bytes(part)
            try:
                load_dataset(f"{spec}:{root}")
            except EpalmError as error:
                assert str(path) in error.message or "youtube_mapping" in name  # a part of it names fewer clips
            else:
                assert path.suffix == ".csv", f"{name}: {part!r}"  # where a line that is cut short is a line
        path.write_bytes(whole)


def test_questions_without_their_annotations(tmp_path: Path) -> None:
    root = write_form("vqa-v2/official", tmp_path)
    (root / ANSWERS).unlink()
    with pytest.raises(UsageError, match=f"{ANSWERS} is missing below .*: the annotations of split 'train'") as caught:
        load_dataset(f"vqa-v2:{root}")
    assert caught.value.hint == f"epalm datasets vqa-v2 --root {root}"


def test_a_name_that_is_half_right(tmp_path: Path, epalm: Epalm) -> None:
    for spec, message, hint in (
        ("vqa-v2", "names a benchmark and not where its files lie", "--data vqa-v2:/root"),
        (f"vqa-v2:{tmp_path}", "holds no annotation file of vqa-v2", "epalm datasets vqa-v2 --root"),
        (f"vqa-v2:{tmp_path / 'gone'}", "is not a folder", "epalm datasets vqa-v2 --root"),
        (f"vqa-v2/mine:{tmp_path}", "vqa-v2 has no form 'mine'", "vqa-v2/official, vqa-v2/karpathy"),
        (f"vqa-2:{tmp_path}", "does not exist", "epalm datasets"),
    ):
        done = epalm("extract", "-m", "image", "--data", spec, "--cache", tmp_path / "cache")
        assert done.code == 1
        assert message in done.err and hint in done.err and "Traceback" not in done.err
    write_form("gqa/list", tmp_path)
    with pytest.raises(UsageError, match="has no audio media; it has image"):
        from epalm.samples import Modality

        load_dataset(f"gqa:{tmp_path}", Modality.AUDIO)


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    root = write_form("gqa/list", tmp_path / "data")
    (tmp_path / "secret.jpg").touch()
    (root / "images/2354786.jpg").unlink()
    (root / "images/2354786.jpg").symlink_to(tmp_path / "secret.jpg")
    dataset = load_dataset(f"gqa:{root}")
    with pytest.raises(MediaError, match="leads outside"):
        dataset.locate(dataset.samples[0].media)
