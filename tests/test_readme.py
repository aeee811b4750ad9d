"""Every command of the README runs, in its order. Models of the Hub are replaced by small ones of the same class."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from transformers import OPTConfig, OPTForCausalLM

from epalm.playground import weights_folder
from epalm.train.runs.run_folder import RunFolder
from tests.conftest import Epalm, save_small_vit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _blocks(text: str) -> list[list[str]]:
    return [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]


BLOCKS = _blocks(README)


def _commands(block: list[str]) -> list[str]:
    return [command for line in block if (command := line.split("#")[0].strip())]


def _small_opt(folder: Path) -> Path:
    shutil.copytree(weights_folder("lm"), folder)
    config = OPTConfig.from_pretrained(folder)
    # As many blocks as OPT-2.7B, for the recipe's injection.
    config.num_hidden_layers, config.hidden_size, config.word_embed_proj_dim, config.ffn_dim = 32, 16, 16, 32
    OPTForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (samples,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (folder / "samples.jsonl").write_text(samples)
    Image.effect_noise((60, 40), 60).convert("RGB").save(folder / "cat.jpg")
    save_small_vit(folder / "vit", depth=12)
    _small_opt(folder / "opt")
    return folder


def _words(command: str) -> list[str]:
    command = command.replace("vit_base_patch16_224.augreg_in21k_ft_in1k", "vit").replace("facebook/opt-2.7b", "opt")
    program, *words = shlex.split(command)
    assert program == "epalm", f"the README has a command that no test runs: {command}"
    return words


def _run(command: str, epalm: Epalm) -> None:
    done = epalm(*_words(command))
    assert done.code == 0, f"{command}\n{done.err}"


def test_the_two_commands_are_recipes_of_the_justfile(tmp_path: Path) -> None:
    first, *_ = BLOCKS
    assert _commands(first) == ["./just demo", "./just test"]
    for command, runs, installs in (("demo", "epalm demo", "core"), ("test", "pytest", "dev")):
        here = _checkout(tmp_path, command)
        words = ["./just", "--dry-run", command]
        done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=True)
        assert runs in done.stderr
        assert f".venv/{installs}" in done.stderr


def _checkout(folder: Path, name: str) -> Path:
    """The files that set everything up, beside a virtual environment that has what this one has."""
    here = folder / name
    (here / ".venv").mkdir(parents=True)
    for file in ("just", "justfile"):
        shutil.copy(ROOT / file, here / file)
    (here / ".venv/bin").symlink_to(Path(sys.executable).parent)
    if not (here / ".venv/bin/just").exists():
        pytest.skip("just is not installed beside this Python: ./just setup-dev")
    return here


@pytest.mark.slow
def test_the_three_stages_as_typed(here: Path) -> None:
    """The demo's test goes through image and audio in the same way."""
    stages = _commands(BLOCKS[1])
    assert stages == ["epalm extract --modality video", "epalm train --from-cache", "epalm score"]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    for command in stages:
        words = [sys.executable, "-m", "epalm", *_words(command)]
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    scores = json.loads((RunFolder.find(here / ".epalm/runs").path / "scores.json").read_text())
    assert scores["modality"] == "video"
    assert scores["tasks"]["qa"]["metrics"]["exact match"] >= 0.8


def test_the_commands_on_ones_own_data(here: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    published, playground, others = BLOCKS[2:]
    assert "--weights playground" in playground[0]  # see `test_own_data`
    for command in (*_commands(published), *_commands(others)):
        _run(command + (" --set optim.max_steps=8" if "epalm train" in command else ""), epalm)


@pytest.mark.slow
def test_the_commands_of_the_documents(tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, on the playground, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((60, 40), 60).convert("RGB").save(tmp_path / "cat.jpg")
    _run("epalm extract --modality image", epalm)
    for name in ("cache.md", "clusters.md", "training.md"):
        for block in _blocks((ROOT / "docs" / name).read_text()):
            for command in _commands(block):
                _run(command.replace("/tmp/shared-cache", str(tmp_path / "shared")), epalm)


def test_no_command_is_left_out() -> None:
    assert len(BLOCKS) == 5
    commands = re.findall(r"`((?:epalm|(?:\./)?just) [^`]+)`", README)
    known = {"epalm extract --help", "epalm export", "epalm train", "epalm cache push", "./just bench"}
    known |= {"epalm bench variants"}
    known |= {"epalm score --predictions", "epalm compare"}  # see `test_evaluate_compare`
    known |= {"epalm lms"}  # see `test_lms`
    known |= {"epalm serve"}  # see `test_serve_browser`
    known |= {'epalm predict photos/*.jpg -q "what animal is this?"'}  # see `test_loaded_model`
    assert set(commands) <= known
