"""`epalm score --predictions`: anybody's predictions, in many forms; every fault is one message that says where."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.benchmark_files import write_form
from tests.conftest import Epalm
from tests.shared_files import shared_case

QUESTIONS = [
    {
        "id": str(number), "modality": "image", "media": f"{number}.jpg", "task": "qa", "split": split,
        "prompt": "what is it?", "raw_answers": ["cat"] * 6 + ["dog"] * 4,
    }
    for number, split in enumerate(["val"] * 4 + ["train"])
]  # fmt: skip
CAPTIONS = [
    {
        "id": str(100 + number), "modality": "image", "media": f"{number}.jpg", "task": "caption", "split": "val",
        "references": ["a cat on a mat", "the cat sits"],
    }
    for number in range(3)
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS + CAPTIONS))
    return path


def _write(path: Path, value: Any) -> Path:
    lines = "".join(json.dumps(one) + "\n" for one in value)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(value, indent=1))
    return path


WORDS = ("--split", "val", "--metrics", "vqa-accuracy,exact match,bleu,rouge-l,cider")


@pytest.mark.parametrize(
    ("file", "key", "text"),
    [("a.jsonl", "id", "text"), ("b.json", "question_id", "answer"), ("c.jsonl", "question_id", "answer")],
)
def test_answers_in_each_form(file: str, key: str, text: str, data: Path, epalm: Epalm) -> None:
    texts = {0: "Cat", 1: "dog", 2: "bird", 3: "a cat"}
    path = _write(data.with_name(file), [{key: n if key != "id" else str(n), text: one} for n, one in texts.items()])
    done = epalm("score", "--predictions", path, "--data", data, *WORDS, "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    written = data.with_name(f"{path.stem}.scores.json")
    assert json.loads(written.read_text()) == scores
    assert list(scores["tasks"]) == ["qa"]  # nothing was said about captions: they are not missing
    qa = scores["tasks"]["qa"]
    assert qa["metrics"] == {"exact match": 0.75, "VQA accuracy": pytest.approx((1 + 1 + 0 + 1) / 4)}
    assert qa["chance"]["exact match"] == 1.0  # the training split's
    assert (qa["expected"], qa["missing"], scores["unknown_ids"]) == (4, 0, 0)
    lines = [json.loads(line) for line in written.with_suffix(".per-sample.jsonl").read_text().splitlines()]
    assert [line["scores"]["VQA accuracy"] for line in lines] == [1, 1, 0, 1]


def test_coco_results_with_unknown_repeated_and_missing_ids_are_told(data: Path, epalm: Epalm) -> None:
    texts = [{"image_id": number, "caption": "a cat on a mat"} for number in (100, 101, 101, 999)]
    path = _write(data.with_name("results.json"), texts)
    done = epalm("score", "--predictions", path, "--data", data, *WORDS, "--out", "x.json")
    assert done.code == 0, done.err
    assert "1 ids are not in the data" in done.err and "'999'" in done.err
    assert "1 ids are there more than once" in done.err and "'101'" in done.err
    assert "1 of 3 samples have no prediction" in done.err and "'102'" in done.err
    assert "2/3" in done.out and "100.00" in done.out
    assert json.loads(Path("x.json").read_text())["tasks"]["caption"]["metrics"]["BLEU-4"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"id": "0", "text": "cat"}', '{"id": "1"}'], ["line 2", "'text' is missing"]),
        (['{"id": "0", "text": ["cat"]}'], ["line 1", "'text' is ['cat']"]),
        (['{"id": "0", "text": null}'], ["line 1", "'text' is None"]),
        (['{"id": "0", "text": NaN}'], ["line 1", "'text' is nan"]),
        (['{"id": "0", "text": true}'], ["line 1", "'text' is True"]),
        (['{"id": "0", "text": "cat\\ud83d"}'], ["line 1", "half of a character"]),
        (['{"0": "cat", "1": "cat\\ud83d"}'], ["'1'", "half of a character"]),
        (['{"0": "cat", "0": "dog"}'], ["'0'", "another text"]),
        (['{"0": ["cat", "dog"]}'], ["'0'", "another text"]),
        (['{"results": [{"id": "0", "text": "cat"}]}'], ["'results'", "not a text"]),
        (['{"question_id": 0, "text": "what is it?", "answer": "cat"}'], ["line 1", "both 'answer' and 'text'"]),
        (["{'id': '0', 'text': 'cat'}"], ["line 1", "not JSON", "one JSON object a line"]),
        (["id,text", '0,"[\'cat\', \'dog\']"'], ["row 2", "Python's notation", '"text"']),
        (["id,text", "0,cat,dog"], ["row 2", "more cells"]),
        (["id,name", "0,cat"], ["row 2", "'text' is missing"]),
        (["question_id,answer,prediction", "0,the right one,"], ["row 2", "both 'answer' and 'prediction'"]),
        (["id,text", ",cat"], ["row 2", "it has no 'id'"]),
        (['{"id": 1.5, "text": "cat"}'], ["line 1", "'id' is 1.5"]),
        (['{"id": true, "text": "cat"}'], ["line 1", "'id' is True"]),
        (['{"name": "0", "text": "cat"}'], ["line 1", "'question_id'", "'image_id'"]),
        (['{"0": "cat"}', '{"1": "dog"}'], ["line 1", "it has no 'id'"]),
        (["[{'question_id': 0, 'answer': 'cat'}]"], ["entry 1", "not JSON", '{"question_id": …, "answer": "…"}']),
        (["", "{nonsense"], ["line 2", "not JSON"]),
        (["5"], ["line 1", "in place of an object"]),
        (['[{"question_id": 0, "answer": "cat"}, {"question_id": 1}]'], ["entry 2", "'answer' is missing"]),
        (["[" * 100_000], ["not JSON"]),
        (['{"id": "0", "text": "cat"}', '{"id": 0, "text": "dog"}'], ["line 2", "another text than in line 1"]),
        (['{"id": "x", "text": "cat"}'], ["none of its 1 ids", "'x'", "'0'"]),
        ([""], ["no prediction"]),
    ],
)  # fmt: skip
def test_a_fault_names_file_line_and_key(lines: list[str], says: list[str], data: Path, epalm: Epalm) -> None:
    path = data.with_name("p.csv" if lines[0][:1].isalpha() else "p.jsonl")
    path.write_text("\n".join(lines))
    done = epalm("score", "--predictions", path, "--data", data, "--split", "val")
    assert done.code == 1 and "Traceback" not in done.err
    assert path.name in done.err and all(part in done.err for part in says), done.err
    assert done.err.count("error:") == 1


def test_question_and_medium_are_those_of_the_data(data: Path, epalm: Epalm) -> None:
    rows = [
        {"id": "0", "text": "cat", "prompt": "What is  it", "media": "pictures/0.jpg"},
        {"id": "1", "text": "cat", "prompt": "what is it made of?", "media": "1.jpg"},
        {"id": "1", "text": "bird", "question": "<image>\nwhat is it?\nAnswer with one word."},
        {"id": "2", "text": "cat", "image": "3.jpg"},
        {"id": "3", "text": "cat"},
    ]
    path = _write(data.with_name("p.jsonl"), rows)
    done = epalm("score", "--predictions", path, "--data", data, *WORDS, "--json")
    assert done.code == 0, done.err
    shown = " ".join(done.err.split())
    assert "1 of 3 go by their id alone: they have neither question nor medium" in shown
    assert "1 are of another question or medium and are not scored; of '2', 'image' is '3.jpg', not '2.jpg'" in shown
    scores = json.loads(done.out)
    assert (scores["of_another_question_or_medium"], scores["by_id_alone"]) == (1, 1)
    assert scores["tasks"]["qa"]["scored"] == 3 and scores["tasks"]["qa"]["metrics"]["exact match"] == pytest.approx(
        2 / 3
    )
    path = _write(path, [{**rows[3], "id": f"{n}"} for n in range(3)])
    done = epalm("score", "--predictions", path, "--data", data, *WORDS)
    assert done.code == 1 and done.err.count("error: ") == 1
    assert "all predictions of the data's ids are of another question or medium" in " ".join(done.err.split())


def test_what_it_wrote_itself_is_compared_and_scores_the_same(data: Path, epalm: Epalm) -> None:
    path = _write(data.with_name("p.jsonl"), [{"id": f"{n}", "text": "cat"} for n in (0, 1, 2, 3, 100)])
    first = json.loads(epalm("score", "--predictions", path, "--data", data, *WORDS, "--json").out)
    again = epalm("score", "--predictions", data.with_name(first["per_sample"]), "--data", data, *WORDS, "--json")
    assert json.loads(again.out)["tasks"] == first["tasks"]
    assert "id alone" not in again.err


def test_ids_that_two_modalities_share_are_refused(data: Path, epalm: Epalm) -> None:
    twice = [{**QUESTIONS[0], "modality": modality} for modality in ("image", "video")]
    path = _write(data.with_name("p.jsonl"), [{"id": "0", "text": "cat"}])
    words = ("score", "--predictions", path, "--data", _write(data, twice), *WORDS)
    refused = epalm(*words)
    assert refused.code == 1 and "add --modality" in refused.err
    assert epalm(*words, "--modality", "video").code == 0


def test_options_that_do_not_fit_are_refused(data: Path, epalm: Epalm) -> None:
    path, pipe = _write(data.with_name("p.jsonl"), [{"id": "0", "text": "cat"}]), data.with_name("pipe")
    os.mkfifo(pipe)  # opening it would wait for ever
    for words, says in (
        (("--predictions", path), "--data"),
        (("--predictions", path, "--data", data, "--run", "a"), "--run"),
        (("--predictions", path, "--data", data, "--split", "nope"), "it has train, val"),
        (("--predictions", path, "--data", data, "--split", "val", "--metrics", "blue"), "no metric 'blue'"),
        (("--predictions", data / "no", "--data", data, "--split", "val"), "does not exist"),
        (("--predictions", pipe, "--data", data, "--split", "val"), "is not a file"),
        (("--out", "x.json"), "--predictions"),
    ):
        done = epalm("score", *words)
        assert done.code == 1 and says in done.err and "Traceback" not in done.err, done.err


def test_a_metric_asked_for_by_name_that_cannot_run_is_exit_code_3(
    data: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("epalm.evaluate.metrics.spice._folder", lambda: tmp_path)  # the models are not in here
    path = _write(data.with_name("p.jsonl"), [{"id": "100", "text": "a cat"}])
    done = epalm("score", "--predictions", path, "--data", data, "--split", "val", "--metrics", "spider,cider")
    assert done.code == 3
    assert "skipped: SPIDEr: SPICE's parser is not there" in done.err and "get_stanford_models" in done.err
    assert "CIDEr" in done.out


def test_ten_answers_score_alike_in_own_and_in_published_files(epalm: Epalm, tmp_path: Path) -> None:
    folder = shared_case("soft-labels-raw-answers")
    for data in (folder / "generic.jsonl", f"vqa-v2:{folder / 'vqa'}"):
        out = tmp_path / "x.json"
        words = ("--predictions", folder / "vqa_results.json", "--data", data, "--split", "val", "--out", out)
        done = epalm("score", *words, "--json")
        assert done.code == 0, done.err
        metrics = json.loads(done.out)["tasks"]["qa"]["metrics"]
        expected = {"VQA soft accuracy": 0.8283, "exact match": 0.5833, "VQA accuracy": 0.8350}
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=5e-5)


def test_one_answer_a_question_is_too_few_for_vqa_accuracy_and_that_is_said(epalm: Epalm, tmp_path: Path) -> None:
    folder = shared_case("one-raw-answer")
    words = ("score", "--predictions", folder / "p.jsonl", "--split", "test", "--out", tmp_path / "x.json")
    done = epalm(*words, "--data", folder / "one_raw.jsonl")
    assert done.code == 0 and "VQA soft accuracy │ 100.00" in done.out and "qa: VQA accuracy" not in done.out
    assert "skipped: VQA accuracy: it needs three people's answers to a question" in done.err
    done = epalm(*words, "--data", folder / "three_raw.jsonl")
    assert done.code == 0 and "qa: VQA accuracy         │  66.67" in done.out and "66.67 at most" in done.err


def test_a_limited_scoring_is_marked_wherever_its_figures_are_shown(data: Path, epalm: Epalm) -> None:
    path = _write(data.with_name("p.jsonl"), [{"id": str(n), "text": "Cat"} for n in range(4)])
    words = ("score", "--predictions", path, "--data", "data.jsonl", "--split", "val", "--metrics", "exact match")
    done = epalm(*words, "--limit", 2)
    assert done.code == 0, done.err
    assert "image, split val of data.jsonl" in done.out and "2/4, limited" in done.out
    shown = json.loads(path.with_name("p.scores.json").read_text())
    figure = shown["tasks"]["qa"]["figures"]["exact match"]
    assert (shown["limit"], figure["scored"], figure["expected"], figure["of"]) == (2, 2, 2, 4)
    assert figure["interval"] == shown["tasks"]["qa"]["interval"] == "no interval: 2 media"
    assert "not in the data" not in done.err and shown["unknown_ids"] == 0  # ids 2 and 3 are
    assert "no interval: 2 media" in done.out and "limited" not in epalm(*words).out
    assert epalm(*words, "--limit", 2).code == 0
    compared = epalm("compare", "p.scores.json", "p.scores.json")
    assert "2/4, limited" in compared.out and "no interval: 2 media" in compared.out
    assert epalm("report", "p.scores.json", "--samples", 0, "--out", "r.html").code == 0
    page = Path("r.html").read_text()
    assert "2/4, limited" in page and "no interval: 2 media" in page and "<strong>limited</strong>" in page


def test_official_results_of_published_benchmarks(
    tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_form("vqa-v2/official", tmp_path / "vqa")
    answers = [{"question_id": 9000, "answer": "maybe"}, {"question_id": 9001, "answer": "No"}]
    path = _write(tmp_path / "vqa.json", answers)
    done = epalm("score", "--predictions", path, "--data", f"vqa-v2:{tmp_path / 'vqa'}", "--split", "train", "--json")
    assert done.code == 0, done.err
    qa = json.loads(done.out)["tasks"]["qa"]
    # Two of ten say "maybe"; all ten say "no", where the case of letters counts.
    assert qa["metrics"]["VQA accuracy"] == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10 / 2)
    assert qa["by_answer_type"]["yes/no"]["scored"] == qa["by_question_type"]["is it"]["scored"] == 2
    write_form("coco-caption/karpathy", tmp_path / "coco")
    path = _write(tmp_path / "coco.json", [{"image_id": 262149, "caption": "A cow"}])
    words = ("--data", f"coco-caption:{tmp_path / 'coco'}", "--split", "test", "--metrics", "bleu,rouge-l", "--json")
    done = epalm("score", "--predictions", path, *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["tasks"]["caption"]["metrics"]["ROUGE-L"] == pytest.approx(1)


def test_figures_are_a_listing(data: Path, epalm: Epalm) -> None:
    path = _write(data.with_name("p.jsonl"), [{"id": str(n), "text": "Cat"} for n in range(4)])
    done = epalm("score", "--predictions", path, "--data", data, *WORDS, "--format", "csv")
    assert done.code == 0, done.err
    frame = pd.read_csv(io.StringIO(done.out))
    shown = json.loads(path.with_name("p.scores.json").read_text())["tasks"]["qa"]["metrics"]
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == shown and set(frame["task"]) == {"qa"}
