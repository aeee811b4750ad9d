"""How to decode, as typed: drawn, ranked, in batches of a size found out; each way has predictions of its own."""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import epalm as package
from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.decode import BatchSize
from epalm.evaluate.decoding.options import DecodeChoice, DecodeOptions, Sampling
from epalm.evaluate.request import PredictRequest, ScoreRequest
from epalm.recipes.settings import DecodeSettings
from tests.conftest import Done
from tests.scored_run import train_one
from tests.trials import Trial

ROOT = Path(__file__).parents[3]
Score = Callable[..., Done]


@pytest.fixture
def score(trial: Trial, tmp_path: Path) -> Score:
    """`epalm score` of a run that was trained for two steps."""
    train_one(trial)
    places = ("--cache", trial.cache, "--runs", tmp_path / "runs")
    return lambda *words: trial.epalm("score", *places, "--metrics", "exact match", *words)


def _scored(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    scored: dict[str, Any] = json.loads(done.out)
    return scored


def _lines(scored: dict[str, Any]) -> dict[str, str]:
    rows = (json.loads(line) for line in Path(scored["predictions"]).read_text().splitlines())
    return {row["id"]: row["text"] for row in rows}


def test_drawn_predictions_are_those_of_their_seed_however_they_come_about(score: Score) -> None:
    sampling = ("--sampling", "--temperature", "1.5", "--top-p", "0.95")
    scored = _scored(score("--json", *sampling, "--seed", 3))
    assert scored["decode"] == {"sampling": {"temperature": 1.5, "top_p": 0.95, "seed": 3}, "max_length": 14}
    drawn, file = _lines(scored), Path(scored["predictions"])
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:5]))
    again = _scored(score("--json", *sampling, "--seed", 3, "--batch-size", 1))
    assert _lines(again) == drawn
    other = _scored(score("--json", *sampling, "--seed", 4))
    assert other["predictions"] != scored["predictions"] and _lines(other) != drawn


def test_the_commands_of_the_document(score: Score, tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("red\nblue\n")
    page = (ROOT / "docs/scores.md").read_text().split("## The metrics")[0]
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 4
    for words in commands:
        done = score(*words[2:], "--limit", 3)
        assert words[:2] == ["epalm", "score"] and done.code == 0, done.err


def test_answers_are_ranked_for_questions_and_captions_decoded_as_usual(score: Score, tmp_path: Path) -> None:
    page = (ROOT / "docs/scores.md").read_text().split("## The metrics")[0]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("vqa-v2:/data/vqa", "trial/world"), {})
    answers = tmp_path / "answers.txt"
    listed = answers.read_text().splitlines()
    assert len(listed) > 3
    usual = _scored(score("--json"))
    done = score("--json", "--rank-answers", answers)
    scored = _scored(done)
    questions, captions = (scored["tasks"][task]["expected"] for task in ("qa", "caption"))
    assert f"answers {questions} questions; {captions} captions are decoded as usual" in done.err
    assert scored["decode"]["answers"] == len(listed) and scored["decode"] | usual["decode"] == scored["decode"]
    ranked, decoded = _lines(scored), _lines(usual)
    asked = {
        row["id"] for row in map(json.loads, Path(scored["predictions"]).read_text().splitlines()) if row["prompt"]
    }
    assert len(asked) == questions
    assert {ranked[name] for name in asked} <= set(listed)
    assert all(ranked[name] == decoded[name] for name in ranked.keys() - asked)
    answers.write_text("red\ntwo circles\nblue\n")
    plan = json.loads(score("--json", "--plan", "--rank-answers", answers).out)
    assert plan["to_decode"] == questions and plan["decode"]["answers"] == 3  # captions are as they were
    answers.write_text("日" * 199)
    done = score("--rank-answers", answers, "--json")
    assert done.code == 1 and "with an answer" in done.err


def test_a_request_in_python_is_the_command(score: Score, trial: Trial, tmp_path: Path) -> None:
    typed = _scored(score("--json", "--num-beams", 1, "--limit", 2))
    request = ScoreRequest(
        decode=DecodeChoice(num_beams=1),
        limit=2,
        metrics="exact match",
        cache=str(trial.cache),
        runs=tmp_path / "runs",
    )
    assert package.score(request) == typed
    with pytest.raises(UsageError, match="predictions of no run"):
        package.score(replace(request, predictions=tmp_path / "p.jsonl"))
    (medium, *_) = trial.media
    (text,) = package.predict([str(medium)], PredictRequest(runs=tmp_path / "runs", decode=DecodeChoice(num_beams=1)))
    assert isinstance(text, str)


def test_options_that_cannot_be(score: Score) -> None:
    cases: list[tuple[Sequence[object], str]] = [
        (("--sampling", "--num-beams", 3), "without the 3 beams"),
        (("--top-p", "0.5"), "add --sampling"),
        (("--sampling", "--top-p", "nan"), "--top-p nan: Input should be a finite number"),
        (("--sampling", "--top-p", "2"), "--top-p 2.0: Input should be less than or equal to 1"),
        (("--sampling", "--temperature", "0"), "--temperature 0.0: Input should be greater than 0"),
        (("--batch-size", "many"), "neither a number of samples nor auto"),
        (("--num-beams", 999_999), "takes 1,999,998 tokens"),
        (("--rank-answers", "nothing.txt"), "nothing.txt does not exist"),
        *(
            (("--predictions", "p.json", *words), f"{words[0]} does not go with --predictions")
            for words in (
                ("--sampling",),
                ("--batch-size", 8),
                ("--checkpoint", "latest"),
                ("--allow-missing", 1),
                ("--device", "cpu"),
            )
        ),
    ]
    for words, message in cases:
        done = score(*words)
        assert done.code == 1 and message in done.err and "Traceback" not in done.err, done.err


_CPU = torch.device("cpu")


def _holding(most: int, sizes: list[int]) -> Callable[[Sequence[int]], list[int]]:
    """Work that needs more memory than there is for more than so many."""

    def work(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return list(batch)

    return work


@pytest.mark.parametrize(("device", "first"), [("cpu", 64), ("cuda", 512)])
def test_a_batch_is_halved_until_the_memory_holds_it(
    device: str, first: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    groups = [list(range(700)), list(range(700, 720))]
    size = BatchSize(None, torch.device(device))
    done = [batch for group in groups for batch in size.batches([group], _holding(20, sizes))]
    assert [item for batch in done for item in batch] == list(range(720))
    assert sizes[0] == first and sizes.count(first) == 1
    assert sizes[-2:] == [16, 4]  # another call begins with what the first has found out
    assert capsys.readouterr().err.count("from here batches of 16 samples") == 1


@pytest.mark.parametrize(("size", "hint"), [(64, "--batch-size auto"), (None, "--num-beams 1")])
def test_too_little_memory_is_told(size: int | None, hint: str) -> None:
    with pytest.raises(EpalmError, match="memory does not suffice") as caught:
        list(BatchSize(size, _CPU).batches([list(range(100))], _holding(0, [])))
    assert hint in str(caught.value.hint)
    with pytest.raises(RuntimeError, match="a bug"):
        list(BatchSize(None, _CPU).batches([[1]], lambda batch: (_ for _ in ()).throw(RuntimeError("a bug"))))


def test_a_file_of_answers_may_be_named_by_a_string(tmp_path: Path) -> None:
    path: Any = str(tmp_path / "answers.txt")
    Path(path).write_text("red\nblue\n")
    assert DecodeChoice(rank_answers=path).options(DecodeSettings()).answers == ("red", "blue")


def test_what_decides_predictions() -> None:
    plain = DecodeOptions().deciding()
    assert plain == {"num_beams": 3, "max_length": 30}
    assert DecodeOptions(batch_size=7).deciding() == plain
    others = [DecodeOptions(num_beams=2), DecodeOptions(sampling=Sampling()), DecodeOptions(sampling=Sampling(seed=1))]
    others += [DecodeOptions(answers=("a", "b")), DecodeOptions(answers=("b", "a"))]
    digests = [json.dumps(one.deciding(), sort_keys=True) for one in others]
    assert len({*digests, json.dumps(plain, sort_keys=True)}) == 6
