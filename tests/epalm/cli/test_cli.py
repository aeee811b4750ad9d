"""The command line itself: help that teaches, and one message for whatever is wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from epalm.cli.app import app
from tests.conftest import Epalm


def _commands() -> set[str]:
    names = set()

    def walk(name: str, command: Any) -> None:
        children = getattr(command, "commands", {})
        for child, inner in children.items():
            walk(f"{name} {child}", inner)
        if not children:
            names.add(name)

    walk("epalm", typer.main.get_command(app))
    return names


def test_the_commands_are_these() -> None:
    cache = ("ls", "info", "why", "verify", "gc", "ledger", "export", "import", "push", "pull")
    names = {
        "demo",
        "extract",
        "train",
        "score",
        "compare",
        "report",
        "predict",
        "serve",
        "recipes",
        "lms",
        "bridges",
        "datasets",
        "runs",
        "doctor",
        "import",
        "export",
        "bench",
        *(f"cache {name}" for name in cache),
    }
    assert _commands() == {f"epalm {name}" for name in names}


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_shows_an_example_of_itself(name: str, epalm: Epalm) -> None:
    done = epalm(*name.split()[1:], "--help")
    assert done.code == 0
    assert "Examples:" in done.out
    assert done.out.count(name) >= 2  # the usage line, and at least one example


def test_help_imports_no_model_library() -> None:
    heavy = "('torch', 'zarr', 'transformers')"
    code = f"import sys; from epalm.cli.app import app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        (("extract", "-m", "image", "--encoder", "resnet"), 1, "resnet"),
        (("extract", "-m", "image", "--encoder", "ast"), 1, "does not read image"),
        (("extract", "-m", "smell"), 2, "smell"),
        (("extract", "--modality", "image", "--wrong"), 2, "--wrong"),
        (("extract", "-m", "image", "--data", "nothing.jsonl"), 1, "nothing.jsonl"),
        (("extract", "-m", "image", "--data", "wrong.csv"), 1, "wrong.csv"),
        (
            ("extract", "-m", "image", "--data", "photos", "--weights", "playground", "--layers", "9"),
            1,
            "blocks 0 to 5",
        ),
        (("extract", "-m", "image", "--data", "photos", "--weights", "playground", "--device", "tpu"), 1, "tpu"),
        (("train", "--recipe", "nothing", "-m", "image"), 1, "nothing"),
        (("train", "-m", "image", "--variant", "large"), 1, "model.variant"),
        (("train", "-m", "image", "--data", "photos", "--set", "optim.epochs=0"), 1, "optim.epochs"),
        (("score", "--run", "nothing"), 1, "nothing"),
        (("predict", "nothing.jpg"), 1, "nothing.jpg"),
        (("cache", "info", "nothing"), 1, "nothing"),
    ],
)
def test_a_wrong_word_is_one_message(
    words: tuple[str, ...], code: int, fault: str, epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/1.png")
    (tmp_path / "wrong.csv").write_text("id,modality,medium,task,split\n1,image,1.png,caption,train\n")
    monkeypatch.chdir(tmp_path)
    done = epalm(*words)
    assert done.code == code
    assert fault in done.err
    assert "Traceback" not in done.err
    assert code == 2 or done.err.count("error: ") == 1
