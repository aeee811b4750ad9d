"""`epalm compare`: differences, intervals and what changed, on the same samples or not at all."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from epalm import api
from epalm.evaluate.given import score_given
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.score_files import COLUMNS
from tests.conftest import Epalm

N = 60


MEASURES = ("exact match", *(f"BLEU-{order}" for order in range(1, 5)), "CIDEr")


def _score(data: Path, name: str, predicted: dict[str, str], metrics: Sequence[str] = MEASURES) -> None:
    path = data.with_name(f"{name}-said.jsonl")
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in predicted.items()))
    out = data.with_name(f"{name}.scores.json")
    score_given(ScoreRequest(predictions=path, data=data.name, metrics=",".join(metrics)), out)


def _data(path: Path, answer: str = "red") -> Path:
    questions = [
        {"id": f"q{n}", "modality": "image", "media": f"{n}.jpg", "task": "qa", "split": "test",
         "prompt": f"color of {n}?", "answers": {answer: 1.0}}
        for n in range(N)
    ]  # fmt: skip
    captions = [
        {"id": f"c{n}", "modality": "image", "media": f"{n}.jpg", "task": "caption", "split": "test",
         "references": [f"a red cat on mat {n}", f"cat {n}"]}
        for n in range(N)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in questions + captions))
    return path


def _predicted(right: float, *, drop: int = 0) -> dict[str, str]:
    predicted = {f"q{n}": "red" if n < right * N else "blue" for n in range(drop, N)}
    return predicted | {f"c{n}": f"a red cat on mat {n}" if n < right * N else f"a dog on {n}" for n in range(N)}


@pytest.fixture(scope="module")
def scored_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "here"
    folder.mkdir()
    with contextlib.chdir(folder):
        data = _data(Path("data.jsonl"))
        _score(data, "base", _predicted(0.5))
        _score(data, "better", _predicted(0.8))
        _score(data, "fewer", _predicted(0.5, drop=3))
        _score(data, "by-match", _predicted(0.5), ("exact match", "BLEU-1"))
        _score(_data(Path("other.jsonl"), answer="green"), "other", _predicted(0.5))
    return folder


@pytest.fixture
def scored(scored_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(scored_once, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_differences_carry_intervals_and_p_values(scored: Path, epalm: Epalm) -> None:
    done = epalm("compare", "base.scores.json", "better.scores.json", "base.scores.json", "--json")
    assert done.code == 0, done.err
    written = json.loads(done.out)
    better, same = written["comparisons"]
    exact = better["tasks"]["qa"]["measures"]["exact match"]
    assert (exact["first"], exact["other"]) == (0.5, 0.8)
    assert exact["difference"] == pytest.approx(0.3) and exact["low"] < 0.3 < exact["high"]
    assert exact["p"] < 0.001 and exact["samples"] == N and 0 < exact["detectable"] < 0.3
    for one in better["tasks"]["caption"]["measures"].values():
        assert 0 < one["low"] < one["difference"] < one["high"] and one["p"] < 0.01
    base = json.loads((scored / "base.scores.json").read_text())["tasks"]["caption"]["metrics"]
    firsts = {name: one["first"] for name, one in better["tasks"]["caption"]["measures"].items()}
    assert firsts == pytest.approx(base, abs=1e-9)
    changed = better["tasks"]["qa"]["changed"]
    assert (changed["texts"], changed["better"], changed["worse"], changed["by"]) == (18, 18, 0, "exact match")
    assert len(changed["examples"]) == 3 and changed["examples"][0]["first"] == "blue"
    for task in same["tasks"].values():
        assert all(one["difference"] == 0 and one["p"] == 1 for one in task["measures"].values())
        assert all(one["detectable"] is None for one in task["measures"].values())
        assert task["changed"]["texts"] == 0
    assert "randomisation" in written["test"] and "bootstrap" in written["interval"]


def test_what_is_printed(scored: Path, epalm: Epalm) -> None:
    done = epalm("compare", "base.scores.json", "fewer.scores.json")
    assert done.code == 0, done.err
    assert "qa: exact match" in done.out and "+0.00" in done.out and "detectable" in done.out
    assert "qa: 3 samples are not scored in both" in done.err
    for names in (("base.scores.json", "by-match.scores.json"), ("by-match.scores.json", "base.scores.json")):
        done = epalm("compare", *names)
        assert (
            done.code == 0
            and "caption: only one of the two was scored by CIDEr:" in done.err
            and "qa: only" not in done.err
        )
    more = epalm("compare", "base.scores.json", "better.scores.json", "--examples", 1)
    assert "18 of 60 predictions differ; by exact match, 18 samples are better and 0 worse" in more.out
    assert more.out.count("'blue' (0.0) → 'red' (100.0)") == 1


def _run(scored: Path, name: str, scores: str, split: str) -> None:
    """A run folder with these scores, of that split, which is scored last."""
    written = json.loads((scored / f"{scores}.scores.json").read_text()) | {"run": name, "split": split}
    folder = scored / ".epalm/runs" / name
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").touch()
    shutil.copy(scored / f"{scores}.scores.per-sample.jsonl", folder / f"scores/{split}.per-sample.jsonl")
    (folder / f"scores/{split}.json").write_text(json.dumps(written | {"per_sample": f"{split}.per-sample.jsonl"}))


def test_runs_are_compared_by_name_on_the_split_asked_for(scored: Path, epalm: Epalm) -> None:
    for name, scores in (("a", "base"), ("b", "better")):
        _run(scored, name, "other", "val")
        _run(scored, name, scores, "test")
    os.utime(scored / ".epalm/runs/a/scores/val.json", (1, 1))
    os.utime(scored / ".epalm/runs/b/scores/val.json", (1, 1))
    for split, difference in ((None, 0.3), ("test", 0.3), ("val", 0.0)):
        done = epalm("compare", "a", scored / ".epalm/runs/b", "--json", *(("--split", split) if split else ()))
        assert done.code == 0, done.err
        written = json.loads(done.out)
        assert written["split"] == (split or "test") and written["comparisons"][0]["other"] == "b"
        measure = written["comparisons"][0]["tasks"]["qa"]["measures"]["exact match"]
        assert measure["difference"] == pytest.approx(difference)
    missing = epalm("compare", "a", "b", "--split", "train")
    assert missing.code == 1 and "epalm score --run a --split train" in missing.err


def test_the_commands_of_the_document(scored: Path, epalm: Epalm) -> None:
    for name, scores in (("baseline", "base"), ("my-run", "better")):
        _run(scored, name, scores, "test")
    shutil.copy(scored / "base-said.jsonl", scored / "results.json")
    (scored / "vqa.jsonl").write_text((scored / "data.jsonl").read_text().replace('"split": "test"', '"split": "val"'))
    page = (Path(__file__).parents[3] / "docs/scores.md").read_text().split("## The metrics")[1]
    lines = [
        line.split("#")[0] for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.split("\n")
    ]
    commands = [shlex.split(line) for line in lines if line.strip() and "--submission" not in line]  # of data elsewhere
    assert [words[1] for words in commands] == ["doctor", "score", "compare"]
    for words in commands:
        # METEOR's start takes long, and is not what this is about.
        done = epalm(*words[1:], *(("--metrics", "exact match,cider") if words[1] == "score" else ()))
        assert done.code == 0, done.err


def test_differences_are_a_listing(scored: Path, epalm: Epalm) -> None:
    done = epalm("compare", "base.scores.json", "better.scores.json", "base.scores.json", "--format", "csv")
    assert done.code == 0, done.err
    frame = pd.read_csv(io.StringIO(done.out))
    assert list(frame["run"].unique()) == ["better", "base"] and len(frame) == 2 * len(MEASURES)
    (exact,) = frame[(frame["measure"] == "exact match") & (frame["run"] == "better")]["difference"]
    assert exact == pytest.approx(0.3)


def test_scores_are_a_frame_and_the_page_says_how(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scores in (("baseline", "better"), ("my-run", "base")):
        _run(scored, name, scores, "test")
    frame = api.scores("my-run")
    assert frame.equals(api.scores(scored / "base.scores.json")) and len(frame) == 2 * N
    assert list(frame) == [*COLUMNS, "exact match", "BLEU counts", "CIDEr"]
    assert frame["exact match"].mean() == 0.5 and frame["exact match"].isna().sum() == frame["CIDEr"].notna().sum() == N
    row = frame.iloc[0]
    assert (row["id"], row["medium"], row["question"], row["prediction"]) == ("q0", "0.jpg", "color of 0?", "red")
    assert row["answers"] == {"red": 1.0} and row["references"] == [] and row["digest"] is None
    page = (Path(__file__).parents[3] / "docs/scores.md").read_text().split("## In pandas")[1]
    (code,) = re.findall(r"```python\n(.*?)```", page.split("##")[0], re.DOTALL)
    exec(code, {})
    printed = capsys.readouterr().out
    assert printed.count("blue") == 18 and "color of 30?" in printed


def test_other_data_are_refused_with_one_message(scored: Path, epalm: Epalm) -> None:
    done = epalm("compare", "base.scores.json", "other.scores.json")
    assert done.code == 1 and "different samples" in done.err and "Traceback" not in done.err
    assert "data.jsonl" in done.err and "other.jsonl" in done.err
    assert done.err.count("error:") == 1


def test_what_cannot_be_compared_is_told(scored: Path, epalm: Epalm) -> None:
    (scored / "text.json").write_text("{}")
    (scored / "run").mkdir()
    (scored / "run/config.toml").touch()
    for words, says in (
        (("base.scores.json",), "needs two"),
        (("base.scores.json", "no.json"), "no.json cannot be read"),
        (("base.scores.json", "text.json"), "no file of scores"),
        (("base.scores.json", "run"), "epalm score --run run"),
        (("base.scores.json", "nothing"), "no run folder"),
    ):
        done = epalm("compare", *words)
        assert done.code == 1 and says in done.err and "Traceback" not in done.err, done.err
    (scored / "base.scores.per-sample.jsonl").unlink()
    done = epalm("compare", "base.scores.json", "better.scores.json")
    assert "base.scores.per-sample.jsonl cannot be read" in done.err
