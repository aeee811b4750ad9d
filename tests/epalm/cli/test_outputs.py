"""Nothing of the user's is overwritten: every option that names an output, against every input and file of others."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from epalm.cli.app import app
from epalm.recipes.config import load_config
from epalm.train.runs.run_folder import RunFolder
from tests.conftest import Epalm
from tests.shared_files import shared_case

# Options and arguments of a path that a command only reads.
READ = {
    ("score", "predictions"), ("score", "rank_answers"), ("predict", "rank_answers"),
    ("datasets", "root"), ("import", "file"), ("cache import", "file"),
}  # fmt: skip
FOLDERS = ("cache", "runs")  # of epalm's own, where nothing is written under a name of others
OWN_DATA = ("--data", "data.jsonl", "--recipe", "own.toml")
# How each output is named, beside the command's inputs, which the folder `world` has.
WAYS: dict[tuple[str, str], Callable[[str], tuple[str, ...]]] = {
    ("score", "out"): lambda out: ("score", "--predictions", "p.jsonl", "--data", "data.jsonl", "--out", out),
    ("report", "out"): lambda out: ("report", "r", "p.scores.json", "--data", "data.jsonl", "--out", out),
    ("export", "out"): lambda out: ("export", "r", out),
    ("cache export", "file"): lambda out: ("cache", "export", "image", out, "--cache", "cache"),
    ("bench", "report"): lambda out: ("bench", "table-1", *OWN_DATA, "--report", out),
}
TAKES_FORCE = {("score", "out"), ("report", "out"), ("cache export", "file"), ("bench", "report")}


def _paths() -> dict[tuple[str, str], bool]:
    """Every option and argument that takes a path, by command and name; whether it is declared as an output."""
    writable = {}

    def walk(name: str, command: Any) -> None:
        for child, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {child}".strip(), inner)
        for param in [] if hasattr(command, "commands") else command.params:
            if "Path" in str(param.type_descriptor.annotation):
                writable[name, param.name] = bool(param.type_descriptor.parameter_info.writable)

    walk("", typer.main.get_command(app))
    return writable


def test_every_path_is_known_as_an_input_or_goes_through_the_guard() -> None:
    paths = {key: writable for key, writable in _paths().items() if key[1] not in FOLDERS}
    assert {key for key, writable in paths.items() if writable} == set(WAYS)
    assert {key for key, writable in paths.items() if not writable} == READ


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epalm: Epalm) -> Path:
    """The working folder: files of the user's, inputs of each command among them, and a run that was scored."""
    monkeypatch.chdir(tmp_path)
    sample = {"id": "1", "modality": "image", "media": "a.png", "task": "qa", "split": "test", "prompt": "what is it?"}
    Path("data.jsonl").write_text(json.dumps({**sample, "answers": {"cat": 1.0}}) + "\n")
    Path("p.jsonl").write_text('{"id": "1", "text": "cat"}\n')
    Path("own.toml").write_text(load_config("playground").to_toml())
    Path("a.png").write_bytes(b"a picture")
    for name in ("notes.json", "notes.html", "notes.md", "notes.h5", "notes.jsonl"):
        Path(name).write_text('{"mine": 1}\n')
    assert epalm("score", "--predictions", "p.jsonl", "--data", "data.jsonl", "--metrics", "exact match").code == 0
    run = RunFolder(Path(".epalm/runs/r"))
    run.path.mkdir(parents=True)
    run.begin(load_config("playground"), {"modality": "image", "recipe": "", "data": "data.jsonl"})
    (run.path / "scores").mkdir()
    scores = json.loads(Path("p.scores.json").read_text()) | {"blind": False}
    (run.path / "scores/s.json").write_text(json.dumps(scores))
    shutil.copy("p.scores.per-sample.jsonl", run.path / "scores")
    Path("cache").mkdir()
    Path("cache/block.h5").write_bytes(b"rows")
    return tmp_path


def _files(folder: Path) -> dict[str, Any]:
    """What is there, with the bytes of the files and where links lead."""

    def state(path: Path) -> Any:
        return os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None  # noqa: PTH115

    return {str(path.relative_to(folder)): state(path) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("way", sorted(WAYS), ids=" ".join)
def test_no_output_replaces_an_input_or_a_file_of_others(way: tuple[str, str], world: Path, epalm: Epalm) -> None:
    os.mkfifo("pipe")
    Path("nowhere.json").symlink_to("gone")
    there = [path.relative_to(world) for path in sorted(world.rglob("*"))]
    if way[0] == "bench":  # all of them are one function
        there = [Path(name) for name in ("own.toml", "data.jsonl", "pipe", "cache", "nowhere.json")]
    for number, name in enumerate(there):
        if way == ("score", "out") and name.name in ("p.scores.json", "s.json"):
            continue  # which it has written
        before = _files(world)
        done = epalm(*WAYS[way](str(world / name if number % 2 else name)))
        assert done.code == 1 and done.err.count("error: ") == 1, (name, done.err)
        assert _files(world) == before, name


@pytest.mark.parametrize("way", sorted(TAKES_FORCE), ids=" ".join)
def test_not_even_force_replaces_an_input_however_it_is_called(way: tuple[str, str], world: Path, epalm: Epalm) -> None:
    read = {
        "score": ("p.jsonl", "data.jsonl"),
        "cache export": ("cache/block.h5",),
        "bench": ("own.toml", "data.jsonl"),
    }
    report = ("p.scores.json", "p.scores.per-sample.jsonl", "data.jsonl", ".epalm/runs/r/config.toml")
    suffix = ".h5" if way[1] == "file" else ".json"
    for number, name in enumerate(read.get(way[0], report)):
        Path(f"link{number}{suffix}").symlink_to(name)
        os.link(name, f"hard{number}{suffix}")
        before = _files(world)
        for out in (name, f"link{number}{suffix}", *([f"hard{number}{suffix}"] if "/" not in name else [])):
            done = epalm(*WAYS[way](out), "--force")
            assert done.code == 1 and "is an input" in done.err, (out, done.err)
        for out in ("cache", "/dev/null"):
            assert epalm(*WAYS[way](out), "--force").code == 1
        assert _files(world) == before and Path("/dev/null").is_char_device()


@pytest.mark.parametrize("way", [("score", "out"), ("report", "out")], ids=" ".join)
def test_own_files_are_written_again_and_those_of_others_with_force(
    way: tuple[str, str], world: Path, epalm: Epalm
) -> None:
    for name, force in (("new.out", ()), ("new.out", ()), ("notes.json", ("--force",)), ("notes.json", ())):
        done = epalm(*WAYS[way](name), *force)
        assert done.code == 0, done.err
    assert "mine" not in Path("notes.json").read_text()
    other = WAYS[("report", "out") if way[0] == "score" else ("score", "out")]
    done = epalm(*other("new.out"))
    assert done.code == 1 and "did not write it for this purpose" in done.err


def test_lines_of_samples_collide_with_nothing(world: Path, epalm: Epalm) -> None:
    kept = {name: Path(name).read_bytes() for name in ("p.jsonl", "data.jsonl")}
    for out in ("p.json", "data.json", "x.jsonl"):
        assert epalm("score", "--predictions", "p.jsonl", "--data", "data.jsonl", "--out", out).code == 0
        assert json.loads(Path(out).read_text())["per_sample"] == f"{Path(out).stem}.per-sample.jsonl"
    assert {name: Path(name).read_bytes() for name in kept} == kept
    shutil.copy("p.jsonl", "y.per-sample.jsonl")
    for predictions in ("y.per-sample.jsonl", "p.jsonl"):
        done = epalm("score", "--predictions", predictions, "--data", "data.jsonl", "--out", "y.json")
        assert done.code == 1 and "y.per-sample.jsonl is" in done.err and not Path("y.json").exists()


def test_a_recipe_is_an_input(world: Path, epalm: Epalm) -> None:
    before = _files(world)
    done = epalm(*WAYS["bench", "report"]("own.toml"))
    assert done.code == 1 and "is an input" in done.err and _files(world) == before


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "-m", "image", "--data", ".", "--weights", "playground", "--cache"),
        ("train", "--from-cache", "--cache"),
    ],
    ids=" ".join,
)
def test_a_file_in_place_of_a_folder_is_one_message(words: tuple[str, ...], world: Path, epalm: Epalm) -> None:
    before = _files(world)
    done = epalm(*words, "notes.json")
    assert done.code == 1 and done.err.count("error: ") == 1 and _files(world) == before, done.err


def test_the_given_files_stay_and_a_folder_is_one_message(
    epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in ("out-overwrites-input", "out-is-folder"):
        shutil.copytree(shared_case(case), tmp_path / case)
    monkeypatch.chdir(tmp_path / "out-overwrites-input")
    before = _files(Path())
    for out in ("preds.json", "data.json"):
        assert epalm("score", "--predictions", "preds.jsonl", "--data", "data.jsonl", "--out", out).code == 0
    assert before.items() <= _files(Path()).items()
    monkeypatch.chdir(tmp_path / "out-is-folder")
    done = epalm("score", "--predictions", "p.jsonl", "--data", "plain.jsonl", "--out", ".")
    assert done.code == 1 and "is a folder" in done.err and done.err.count("error: ") == 1
