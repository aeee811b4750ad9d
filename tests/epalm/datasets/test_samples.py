"""Data files become samples, or one message that names file, line and key."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from epalm.datasets import load_dataset
from epalm.datasets.generic import agreed_scores
from epalm.errors import UsageError
from epalm.samples import Modality, Task
from tests.shards import write_tar

QA = {
    "id": "1",
    "modality": "image",
    "media": "a.png",
    "task": "qa",
    "split": "test",
    "prompt": "what",
    "question_type": "what is",
    "answer_type": "other",
    "answers": {"red": 1.0, "blue": 0.3},
}
CAPTION = {
    "id": "2",
    "modality": "audio",
    "media": "b.wav",
    "task": "caption",
    "split": "train",
    "references": ["a beep"],
}


def _write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_jsonl_and_csv_give_the_same_samples(tmp_path: Path) -> None:
    jsonl = load_dataset(str(_write(tmp_path / "s.jsonl", QA, CAPTION)))
    (tmp_path / "s.csv").write_text(
        "id,modality,media,task,split,prompt,question_type,answer_type,answers,references\n"
        '1,image,a.png,qa,test,what,what is,other,"{""red"": 1.0, ""blue"": 0.3}",\n'
        "2,audio,b.wav,caption,train,,,,,a beep\n"
    )
    assert load_dataset(str(tmp_path / "s.csv")).samples == jsonl.samples
    assert jsonl.root == tmp_path
    assert (jsonl.samples[0].question_type, jsonl.samples[0].answer_type) == ("what is", "other")
    assert [sample.task for sample in jsonl.samples] == [Task.QA, Task.CAPTION]


def test_modality_filters_and_an_absent_one_is_named(tmp_path: Path) -> None:
    path = str(_write(tmp_path / "s.jsonl", QA, CAPTION))
    assert [sample.id for sample in load_dataset(path, Modality.AUDIO).samples] == ["2"]
    with pytest.raises(UsageError, match=r"no video media; it has audio, image"):
        load_dataset(path, Modality.VIDEO)


def test_raw_answers_alone_give_scores(tmp_path: Path) -> None:
    row = {**QA, "answers": {}, "raw_answers": ["red"] * 7 + ["pink"] * 3}
    (sample,) = load_dataset(str(_write(tmp_path / "s.jsonl", row))).samples
    assert sample.answers == {"red": 1.0, "pink": 0.9}


def _vqa_v2(root: Path, raw_answers: Sequence[Sequence[str]]) -> str:
    """These answers in VQA's published form."""
    questions = [{"image_id": 1, "question": "what?", "question_id": n} for n in range(len(raw_answers))]
    annotations = [
        {"question_id": n, "answers": [{"answer": answer} for answer in raw]} for n, raw in enumerate(raw_answers)
    ]
    root.mkdir(exist_ok=True)
    (root / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": questions}))
    (root / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": annotations}))
    return f"vqa-v2:{root}"


def test_raw_answers_give_the_same_scores_in_every_form(tmp_path: Path) -> None:
    rng = random.Random(0)
    pool = ("yes", "Yes", " yes ", "no", "2", "the cat", "")
    raw_answers = [[rng.choice(pool) for _ in range(rng.choice((1, 2, 3, 4, 10)))] for _ in range(300)]
    raw_answers += [[""] * 10, ["", "yes"]]
    rows = [{**QA, "id": str(n), "answers": {}, "raw_answers": raw} for n, raw in enumerate(raw_answers)]
    own = load_dataset(str(_write(tmp_path / "s.jsonl", *rows))).samples
    published = load_dataset(_vqa_v2(tmp_path / "vqa", raw_answers), media_here=False).samples
    shard = [("a.jpg", b"a"), ("a.json", json.dumps(rows).encode())]
    packed = load_dataset(str(write_tar(tmp_path / "s.tar", shard))).samples
    for one, two, three in zip(own, published, packed, strict=True):
        assert (dict(one.answers), one.unanswerable) == (dict(two.answers), two.unanswerable)
        assert (dict(one.answers), one.unanswerable) == (dict(three.answers), three.unanswerable)
        assert one.unanswerable != bool(one.answers)


def test_of_one_or_two_people_answers_have_their_shares() -> None:
    assert agreed_scores(["cat"]) == {"cat": 1.0} == agreed_scores(["cat", "cat"])
    assert agreed_scores(["cat", "dog"]) == {"cat": 0.5, "dog": 0.5}
    assert agreed_scores(["cat"] * 3) == pytest.approx({"cat": 2 / 3}, abs=1e-6)


def test_a_missing_id_is_the_place_in_the_file(tmp_path: Path) -> None:
    row = {key: value for key, value in QA.items() if key != "id"}
    path = tmp_path / "s.jsonl"
    path.write_text(f"\n{json.dumps(row)}\n  \n{json.dumps({**row, 'id': None})}\n")
    assert [sample.id for sample in load_dataset(str(path)).samples] == ["s.jsonl:2", "s.jsonl:4"]


def test_what_samples_share_is_kept_once(tmp_path: Path) -> None:
    rows = [{**QA, "id": str(number), "prompt": f"what {number // 3}"} for number in range(30)]
    samples = load_dataset(str(_write(tmp_path / "s.jsonl", *rows))).samples
    assert [(sample.id, sample.prompt, sample.answers) for sample in samples] == [
        (str(number), f"what {number // 3}", QA["answers"]) for number in range(30)
    ]
    assert len({id(sample.media) for sample in samples}) < 10
    assert len({id(sample.answers) for sample in samples}) == 1


def test_root_after_a_colon(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    path = _write(tmp_path / "s.jsonl", QA)
    assert load_dataset(f"{path}:{tmp_path / 'media'}").root == tmp_path / "media"


def test_a_folder_of_media_in_name_order(tmp_path: Path) -> None:
    for name in ("z.png", "sub/a.mp4", "notes.txt", ".hidden/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    samples = load_dataset(str(tmp_path)).samples
    assert [(sample.media, sample.modality) for sample in samples] == [
        ("z.png", "image"),
        ("sub/a.mp4", "video"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**QA, "anwsers": {}}, "unknown key 'anwsers'"),
        ({key: value for key, value in QA.items() if key != "media"}, "missing key 'media'"),
        ({**QA, "modality": "smell"}, "'modality' is 'smell'"),
        ({**QA, "answers": {"red": 2}}, "'answers' scores 'red' with 2"),
        ({**QA, "prompt": None}, "needs 'prompt'"),
        ({**QA, "references": "a text"}, "'references' must be a list"),
        ({**QA, "media": 3}, "'media' is 3, not a text"),
        ({**QA, "media": None}, "missing key 'media'"),
        ({**QA, "split": None}, "missing key 'split'"),
        ({**QA, "id": " "}, "'id' is empty"),
        ({**QA, "prompt": "\n"}, "'prompt' is empty"),
        ({**QA, "modality": ["image"]}, "'modality' is"),
        ({**QA, "answers": {"red": True}}, "'answers' scores 'red' with True"),
        ({**QA, "question_type": 3}, "'question_type' is 3, not a text"),
        ({**QA, "answers": ["red"]}, "'answers' must be an answer"),
        ({**QA, "raw_answers": [1]}, "'raw_answers' must be a list"),
        ([1, 2], "in place of an object"),
    ],
)
def test_a_fault_names_file_line_and_key(tmp_path: Path, row: object, message: str) -> None:
    path = _write(tmp_path / "s.jsonl", CAPTION, row)
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(str(path))
    assert caught.value.message.startswith(f"{path}, line 2")


def test_other_faults_are_one_message(tmp_path: Path) -> None:
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "torn.jsonl").write_text('{"id": ')
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    (tmp_path / "endless.jsonl").write_text(f'{{"id": {"1" * 100_000}}}')
    (tmp_path / "wide.csv").write_text("id,modality\n1,image,extra\n")
    names = ("binary.jsonl", "empty.jsonl", "torn.jsonl", "deep.jsonl", "endless.jsonl", "wide.csv", "absent.jsonl")
    for name in (*names, "form.xyz"):
        with pytest.raises(UsageError, match=name.split(".")[0]):
            load_dataset(str(tmp_path / name))
    twice = _write(tmp_path / "twice.jsonl", QA, QA)
    with pytest.raises(UsageError, match="used twice"):
        load_dataset(str(twice))
