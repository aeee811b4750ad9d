"""A prediction is reused where all that decides it is the same, and nowhere else: scores are those of a fresh run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.evaluate.decoding.options import DecodeOptions, Sampling
from epalm.evaluate.decoding.predictions import find_reusable, what_decides
from epalm.samples import Modality, Sample, Task
from epalm.train.data.text import TextFormat, load_text_format
from epalm.train.lm.load import load_lm
from tests.conftest import Done, Epalm
from tests.scripted_scoring import Scripted, World
from tests.shared_files import shared_case
from tests.trials import Trial


@pytest.fixture(scope="module")
def text() -> TextFormat:
    return load_text_format("playground", load_lm("playground"))


def _sample(name: str, prompt: str | None, media: str, split: str = "test") -> Sample:
    if prompt is None:
        return Sample(name, Modality.IMAGE, media, Task.CAPTION, split, references=("a circle",))
    return Sample(name, Modality.IMAGE, media, Task.QA, split, prompt, {"red": 1.0})


PROMPTS = ("what is it?", "what is it", "how many?", "", "what\u2028now", None)
ANSWERS = ({"red": 1.0}, {"two": 1.0}, {"a big red circle": 0.5})


@st.composite
def edits(draw: st.DrawFn) -> Callable[[World], None]:
    """One change of data, run or way to decode."""
    place, other, word = (draw(st.integers(0, 99)) for _ in range(3))

    def one(**change: Any) -> Callable[[World], None]:
        def edit(world: World) -> None:
            at = place % len(world.samples)
            world.samples[at] = replace(world.samples[at], **change)

        return edit

    def swap_ids(world: World) -> None:
        a, b = (number % len(world.samples) for number in (place, other))
        one_id, other_id = world.samples[a].id, world.samples[b].id
        world.samples[a] = replace(world.samples[a], id=other_id)
        world.samples[b] = replace(world.samples[b], id=one_id)

    def rename(world: World) -> None:
        at = place % len(world.samples)
        world.samples[at] = replace(world.samples[at], id=f"renamed {place} {max(s.id for s in world.samples)}")

    def reorder(world: World) -> None:
        world.samples.insert(place % len(world.samples), world.samples.pop(other % len(world.samples)))

    def shift_ids(world: World) -> None:
        """As a line put in front does where ids are the numbers of lines."""
        world.samples.insert(0, _sample("", PROMPTS[word % 6], "a"))
        world.samples = [replace(sample, id=f"line {n}") for n, sample in enumerate(world.samples)]

    def drop(world: World) -> None:
        if len(world.samples) > 1:
            world.samples.pop(place % len(world.samples))

    def overwrite(world: World) -> None:
        world.media["abc"[place % 3]] = "xyz"[other % 3]

    def setting(**change: Any) -> Callable[[World], None]:
        return lambda world: world.__dict__.update(change)

    ways = (DecodeOptions(), DecodeOptions(1), DecodeOptions(sampling=Sampling(seed=word % 2)),
            DecodeOptions(answers=("red", "two")))  # fmt: skip
    prompt = PROMPTS[word % 6]
    as_task = (
        {"task": Task.CAPTION, "references": ("a",)} if prompt is None else {"task": Task.QA, "answers": ANSWERS[0]}
    )
    return draw(
        st.sampled_from(
            [
                one(prompt=prompt, **as_task), one(media="abc"[word % 3]), one(answers=ANSWERS[word % 3]),
                one(references=("a big red circle",)), one(split="other"), one(split="test"), one(raw_answers=("red",)),
                swap_ids, rename, reorder, shift_ids, drop, overwrite,
                setting(split=("test", "other")[word % 2]), setting(limit=word % 3 or None),
                setting(trained=("weights", "others")[word % 2]), setting(encoder=("vit", "ast")[word % 2]),
                setting(decode=ways[word % 4]),
            ]
        )
    )  # fmt: skip


@given(changes=st.lists(st.lists(edits(), min_size=1, max_size=3), max_size=4))
@settings(max_examples=25)
def test_after_any_change_scores_are_those_of_a_fresh_copy(
    changes: list[list[Callable[[World], None]]], text: TextFormat, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("runs")
    samples = [_sample(f"line {n}", PROMPTS[n % 6], "abc"[n % 2]) for n in range(6)]
    samples.append(_sample("o", "what is it?", "a", "other"))
    world, engine = World(text, samples, {"a": "x", "b": "y", "c": "z"}), Scripted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)  # most of the time, and nothing is cut off here
        for number, some in enumerate([[], *changes]):
            for edit in some:
                edit(world)
            if any(sample.split == world.split for sample in world.samples):
                assert world.score(here / "kept", engine) == world.score(here / f"{number}", Scripted())
    shutil.rmtree(here)


@pytest.fixture
def world(text: TextFormat) -> World:
    samples = [_sample(f"{n}", f"what is it in place {n}?", "a") for n in range(6)]
    return World(text, samples, {"a": "x", "b": "y"})


def test_it_says_how_many_are_reused_and_how_many_are_decoded(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed() -> str:
        capsys.readouterr()
        world.score(tmp_path, Scripted())
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "predictions: " in line]
        return line.partition("predictions: ")[2]

    def change(place: int, **values: Any) -> None:
        world.samples[place] = replace(world.samples[place], **values)

    assert printed() == "0 reused, 6 to decode"
    assert printed() == "6 reused, 0 to decode"
    change(0, prompt="how many?")
    change(1, prompt="which?")
    change(2, media="b")
    change(3, answers={"two": 1.0})
    assert printed() == "3 reused, 3 to decode"
    world.samples.append(_sample("new", "how many?", "a"))  # equal to another one
    world.samples.append(_sample("newer", "how much?", "a"))
    world.samples.append(_sample("newest", "how much?", "a"))
    assert printed() == "7 reused, 1 equal to another one, 1 to decode"
    change(0, task=Task.CAPTION, prompt=None, references=("a",), media="b")
    change(1, id="renamed")
    assert printed() == "8 reused, 1 to decode"
    for name, value in (("trained", "other"), ("encoder", "ast"), ("decode", DecodeOptions(1))):
        setattr(world, name, value)
        assert printed() == "0 reused, 1 equal to another one, 8 to decode"
    world.samples = [replace(sample, split="val") for sample in world.samples]
    world.split = "val"
    assert printed() == "9 reused, 0 to decode"


def test_predictions_without_keys_are_not_reused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions").mkdir()
    lines = [{"id": f"{n}", "text": "stale", "media": "a", "prompt": "?", "answers": {"red": 1.0}} for n in range(4)]
    (tmp_path / "predictions/test-0123456789abcdef.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert world.score(tmp_path, Scripted())[1] == world.score(tmp_path / "fresh", Scripted())[1]
    assert "0 reused, 6 to decode" in capsys.readouterr().err


def test_a_file_name_that_is_not_utf8_is_kept(world: World, tmp_path: Path) -> None:
    world.media["\udce9.png"] = "z"
    world.samples = [_sample("\udce9", "what is it?", "\udce9.png")]
    world.score(tmp_path, engine := Scripted())
    asked, path = what_decides(world.run(tmp_path), world.features, world.samples, world.decode, "test")
    assert find_reusable(asked, path).reused == len(engine.asked) == 1
    assert json.loads(path.read_text())["media"] == "\udce9.png"


def test_a_scoring_of_other_samples_or_metrics_leaves_the_files_of_others_alone(world: World, tmp_path: Path) -> None:
    def change_answers() -> None:
        world.samples = [replace(sample, answers={"two": 1.0}) for sample in world.samples]

    def overwrite() -> None:
        world.media["a"] = "x2"

    kept: dict[str, bytes] = {}
    changes: list[Callable[[], object]] = [
        lambda: None, lambda: setattr(world, "limit", 2), lambda: setattr(world, "metrics", ("VQA soft accuracy",)),
        change_answers, overwrite,
    ]  # fmt: skip
    for number, change in enumerate(changes, 1):
        change()
        for _ in range(2):
            world.score(tmp_path, Scripted())
        files = {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()}
        assert len(files) == 2 * number and kept.items() <= files.items()
        kept = files
    assert len(list((tmp_path / "predictions").iterdir())) == 1


def test_questions_saved_anew_under_the_same_ids(trial: Trial, tmp_path: Path) -> None:
    places = ("--cache", trial.cache, "--runs", tmp_path / "runs")
    train = ("train", "--from-cache", "-m", "image", "--data", trial.world, "--run", "own", "--recipe", "playground")
    assert trial.epalm(*train, "--set", "optim.max_steps=2", "--set", "optim.batch_size=4", *places).code == 0
    rows = [{key: value for key, value in row.items() if key != "id"} for row in trial.samples]
    asked = [row for row in rows if row["split"] == "test" and row["task"] == "qa"]

    def score(name: str) -> tuple[Done, list[dict[str, Any]]]:
        done = trial.epalm("score", "--run", name, "--metrics", "exact match", "--num-beams", 1, *places)
        assert done.code == 0, done.err
        printed = json.loads((tmp_path / "runs" / name / "scores.json").read_text())
        lines = (tmp_path / "runs" / name / printed["per_sample"]).read_text().splitlines()
        return done, [json.loads(line) for line in lines]

    trial.samples = asked
    before = {(row["media"], row["prompt"]): row["text"] for row in score("own")[1]}
    trial.samples = [{**asked[0], "prompt": "how large is it?"}, *asked]
    plan = json.loads(trial.epalm("score", "--run", "own", "--num-beams", 1, "--plan", "--json", *places).out)
    assert (plan["decoded_already"], plan["to_decode"]) == (len(asked), 1)
    done, after = score("own")
    assert f"predictions: {len(asked)} reused, 1 to decode" in done.err
    assert all(row["text"] == before[row["media"], row["prompt"]] for row in after[1:])
    shutil.copytree(tmp_path / "runs/own", tmp_path / "runs/fresh")
    shutil.rmtree(tmp_path / "runs/fresh/predictions")
    assert score("fresh")[1] == after


@pytest.mark.slow  # it trains a model that answers
def test_answers_of_before_are_not_those_of_after(
    tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shared_case("stale-predictions"), tmp_path / "case", copy_function=shutil.copyfile)
    (tmp_path / "case").chmod(0o755)
    monkeypatch.chdir(tmp_path / "case")
    data = Path("questions.jsonl")
    assert epalm("extract", "-m", "image", "--data", "samples.jsonl", "--weights", "playground").code == 0
    words = ("--from-cache", "--data", "samples.jsonl", "--recipe", "playground", "--run", "own")
    assert epalm("train", *words, "--set", "optim.batch_size=16").code == 0
    rows = [json.loads(line) for line in Path("samples.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["split"] == "test" and row["task"] == "qa"]
    before = [{key: value for key, value in row.items() if key != "id"} for row in asked]
    first = {**before[0], "media": before[1]["media"], "answers": before[1]["answers"]}
    for lines in (before, [first, *before]):
        data.write_text("".join(json.dumps(row) + "\n" for row in lines))
        done = epalm("score", "--run", "own", "--data", data, "--metrics", "exact match", "--json")
        assert json.loads(done.out)["tasks"]["qa"]["metrics"] == {"exact match": 1.0}
