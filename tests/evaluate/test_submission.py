"""What is handed on of a scoring, held against what its readers do: their logic is written out here."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm.datasets import load_dataset
from epalm.datasets.benchmarks import benchmarks
from epalm.errors import UsageError
from epalm.evaluate.metrics.bootstrap import figures, standard_error
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.submission import LM_EVAL, plan_submission
from epalm.samples import Modality, Sample, Task
from tests.benchmark_files import write_form
from tests.conftest import Epalm
from tests.measured import mean_of
from tests.scored_run import train_one
from tests.trials import Trial


def _vqa_accuracy(results: Path, questions: Path, annotations: Path) -> float:
    """As VQA.loadRes and VQAEval do (github.com/GT-Vision-Lab/VQA), for answers that need no normalisation."""
    answered = json.loads(results.read_text())
    assert type(answered) is list, "results is not an array of objects"
    asked = {one["question_id"] for one in json.loads(questions.read_text())["questions"]}
    assert {one["question_id"] for one in answered} == asked, "Results do not correspond to current VQA set"
    truth = {one["question_id"]: one["answers"] for one in json.loads(annotations.read_text())["annotations"]}
    accuracies = []
    for one in answered:
        answer, given = one["answer"].replace("\n", " ").replace("\t", " ").strip(), truth[one["question_id"]]
        others = [[other for other in given if other is not mine] for mine in given]
        agree = [sum(other["answer"] == answer for other in some) for some in others]
        accuracies.append(np.mean([min(1.0, count / 3) for count in agree]))
    return float(np.mean(accuracies))


def _gqa_accuracy(results: Path, questions: Path) -> float:
    """As eval.py of GQA does (cs.stanford.edu/people/dorarad/gqa/evaluate.html): letter by letter."""
    asked = json.loads(questions.read_text())
    predictions = {one["questionId"]: one["prediction"] for one in json.loads(results.read_text())}
    for name in asked:
        if name not in predictions and asked[name]["isBalanced"]:
            raise AssertionError("missing predictions")
    balanced = [name for name in asked if asked[name]["isBalanced"]]
    return float(np.mean([predictions[name] == asked[name]["answer"] for name in balanced]))


def _coco_captions(results: Path, annotations: Path) -> dict[int, list[str]]:
    """As COCO.loadRes and COCOEvalCap do (github.com/salaniz/pycocoevalcap): the captions of each picture."""
    said = json.loads(results.read_text())
    pictures = {one["id"] for one in json.loads(annotations.read_text())["images"]}
    assert type(said) is list, "results in not an array of objects"
    names = [one["image_id"] for one in said]
    assert set(names) == set(names) & pictures, "Results do not correspond to current coco set"
    captions = defaultdict(list)
    for one in said:
        captions[one["image_id"]].append(one["caption"])
    return {picture: captions[picture] for picture in pictures}


def _given(root: Path, spec: str, split: str, texts: dict[str, str]) -> Path:
    ids = [one.id for one in load_dataset(spec, Modality.IMAGE, media_here=False).split(split)]
    path = root / "p.jsonl"
    path.write_text("".join(json.dumps({"id": one, "text": texts.get(one, "yes")}) + "\n" for one in ids))
    return path


def test_vqas_own_reader_takes_the_file_and_finds_the_same_accuracy(tmp_path: Path, epalm: Epalm) -> None:
    root = write_form("vqa-v2/official", tmp_path / "vqa")
    words = ("--data", f"vqa-v2/official:{root}", "--metrics", "VQA accuracy", "--json")
    path = _given(tmp_path, f"vqa-v2/official:{root}", "train", {"9000": " maybe\n", "9001": "no"})
    done = epalm("score", "--predictions", path, *words, "--split", "train", "--submission", "vqa-v2")
    assert done.code == 0, done.err
    file = tmp_path / "p.vqa-v2.json"
    assert json.loads(done.out)["submission"] == str(file) and str(file) in done.err
    own = _vqa_accuracy(
        file, root / "v2_OpenEnded_mscoco_train2014_questions.json", root / "v2_mscoco_train2014_annotations.json"
    )
    assert own == pytest.approx(json.loads(done.out)["tasks"]["qa"]["metrics"]["VQA accuracy"]) and 0 < own < 1
    again = ("score", "--predictions", path, *words, "--split", "train", "--submission", "vqa-v2")
    assert epalm(*again).code == 0  # over its own
    (tmp_path / "p.scores.json").unlink()
    refused = epalm(*again)  # over what may be anybody's
    assert refused.code == 1 and "--force" in refused.err
    # What the server asks has no answers here: nothing is scored, and all is handed on.
    path = _given(tmp_path, f"vqa-v2/official:{root}", "test", {})
    done = epalm("score", "--predictions", path, *words, "--split", "test", "--submission", "vqa-v2", "--force")
    assert done.code == 0 and json.loads(file.read_text()) == [{"question_id": 1000, "answer": "yes"}]


def test_gqas_own_reader_takes_the_file(tmp_path: Path, epalm: Epalm) -> None:
    root = write_form("gqa/official", tmp_path / "gqa")
    spec, questions = f"gqa/official:{root}", root / "testdev_balanced_questions.json"
    answers = {name: one["answer"] for name, one in json.loads(questions.read_text()).items()}
    path = _given(tmp_path, spec, "test", dict(list(answers.items())[:1]))
    done = epalm("score", "--predictions", path, "--data", spec, "--submission", "gqa", "--json")
    assert done.code == 0, done.err
    assert _gqa_accuracy(tmp_path / "p.gqa.json", questions) == pytest.approx(1 / len(answers))
    assert json.loads(done.out)["tasks"]["qa"]["metrics"]["exact match"] == pytest.approx(1 / len(answers))


def test_cocos_own_reader_takes_the_file(tmp_path: Path, epalm: Epalm) -> None:
    from pycocotools.coco import COCO

    root = write_form("coco-caption/official-2014", tmp_path / "coco")
    spec = f"coco-caption/official-2014:{root}"
    path = _given(tmp_path, spec, "val", {})
    words = ("--split", "val", "--metrics", "bleu", "--submission", "coco-caption")
    assert epalm("score", "--predictions", path, "--data", spec, *words).code == 0
    file, annotations = tmp_path / "p.coco-caption.json", next(root.rglob("captions_val2014.json"))
    captions = _coco_captions(file, annotations)
    assert captions and all(said == ["yes"] for said in captions.values())
    loaded = COCO(str(annotations)).loadRes(str(file))
    assert {key: [one["caption"] for one in said] for key, said in loaded.imgToAnns.items()} == captions


def _questions(*ids: str) -> list[Sample]:
    return [Sample(one, Modality.IMAGE, "1.jpg", Task.QA, "test", "what?") for one in ids]


@pytest.mark.parametrize(
    ("form", "ids", "predicted", "says"),
    [
        ("vqa-v2", ["7", "image-test-1"], None, "1 of 2 ids are none of vqa-v2.*'question_id'.*'image-test-1'"),
        ("vqa-v2", ["7", "007"], None, "'007'"),
        ("vqa-v2", ["٧"], None, "none of vqa-v2"),
        ("gqa", ["07", "testdev:7"], None, "'testdev:7'"),
        ("gqa", ["07", "8"], ["8"], "1 of 2 samples have no prediction, such as '07'"),
        ("coco-caption", ["7"], None, "no samples of the task"),
        ("a-okvqa", ["7"], None, "no known form"),
        ("coco", ["7"], None, "no known form"),
    ],
)
def test_what_a_server_would_refuse_is_refused(form: str, ids: list[str], predicted: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan_submission(form, _questions(*ids), predicted or ids)


def test_numbers_are_numbers_where_the_benchmark_has_such() -> None:
    assert plan_submission("vqa-v2", _questions("0", "262148000"), ["0", "262148000"]).ids["262148000"] == 262148000
    assert plan_submission("gqa", _questions("02930152"), ["02930152"]).ids == {"02930152": "02930152"}
    text = ScoreRequest.__dataclass_fields__["submission"].metadata["option"].help
    assert all(name in text for name in (*(n for n, one in benchmarks().items() if one.results), LM_EVAL))


def _table(results: dict[str, Any]) -> list[list[Any]]:
    """The rows that lm-eval's make_table prints (lm_eval/utils.py)."""
    rows = []
    for task, values in results["results"].items():
        version, shots = results["versions"].get(task, "    N/A"), str(results.get("n-shot", {}).get(task, " "))
        name = values.pop("alias", task)
        for key, value in sorted(values.items()):
            metric, _, kept = key.partition(",")
            if metric.endswith("_stderr"):
                continue
            better = {True: "↑", False: "↓"}[results["higher_is_better"][task][metric]]
            error = values[f"{metric}_stderr,{kept}"]
            error = "   N/A" if error == "N/A" else f"{error:.4f}"
            rows.append([name, version, kept, shots, metric, better, f"{value:.4f}", "±", error])
    return rows


def test_a_run_hands_on_its_predictions_and_scores(trial: Trial) -> None:
    train_one(trial)
    trial.samples = [row | {"id": str(number)} for number, row in enumerate(trial.samples, 10)]
    words = ("score", "--cache", trial.cache, "--metrics", "exact match,bleu", "--runs", "runs")
    refused = trial.epalm(*words, "--submission", "vqa-v2", "--limit", 1)
    assert refused.code == 1 and "no prediction" in refused.err and not Path("runs/a/predictions").exists()
    for form, task in (("vqa-v2", "qa"), ("coco-caption", "caption")):
        done = trial.epalm(*words, "--submission", form, "--json")
        assert done.code == 0, done.err
        scores = json.loads(done.out)
        key, text, _ = benchmarks()[form].results or ("", "", int)
        lines = map(json.loads, Path(scores["predictions"]).read_text().splitlines())
        texts = {line["key"]: line["text"].strip() for line in lines}
        handed = {str(one[key]): one[text] for one in json.loads(Path(scores["submission"]).read_text())}
        assert handed.keys() == {row["id"] for row in trial.samples if (row["split"], row["task"]) == ("test", task)}
        assert set(handed.values()) <= set(texts.values())
    done = trial.epalm(*words, "--submission", "lm-eval", "--json")
    scores = json.loads(done.out)
    results = json.loads(Path(scores["submission"]).read_text())
    table = _table(results)
    assert {(row[0], row[4]) for row in table} == {
        ("world_test_qa", "exact_match"), *(("world_test_caption", f"bleu_{n}") for n in range(1, 5)),
    }  # fmt: skip
    assert all(row[8] == "   N/A" for row in table)  # the trial has two test pictures
    part = scores["tasks"]["qa"]
    assert results["n-samples"]["world_test_qa"] == {"original": part["of"], "effective": part["scored"]}
    assert results["configs"]["world_test_qa"]["metadata"]["stderr"].startswith("no interval")


def test_standard_errors_are_those_of_the_mean() -> None:
    """Of N independent samples the mean's is known: s / sqrt(N); the interval has to come to it."""
    for count in (12, 400):
        values = np.random.default_rng(count).normal(0.5, 0.1, count)
        (figure,) = figures({"m": mean_of(values)}, [str(n) for n in range(count)]).values()
        error = standard_error(figure)
        assert error == pytest.approx(values.std(ddof=1) / count**0.5, rel=0.08)
    assert standard_error({"low": None, "high": None, "media": 3}) is None
