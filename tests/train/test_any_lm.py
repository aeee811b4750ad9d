"""From media to answers through the command line, with language models of several families and any encoder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import epalm as package
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.tiny_lms import FAMILIES, save_lm
from tests.trials import BASE, make_trial

# Each family, and three of them with every encoder.
PAIRS = [
    *((family, modality) for family in ("opt", "llama", "gpt2") for modality in Modality),
    *((family, Modality.IMAGE) for family in ("qwen2", "gemma2", "olmo2")),
]
CHAT = ("--set", "text.template=chat")


@pytest.fixture(scope="module")
def lms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lms")
    for family in FAMILIES:
        save_lm(family, root / family)
    return root


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    for modality in Modality:
        make_trial(root / modality, modality)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _done(epalm: Epalm, *words: object) -> str:
    done = epalm(*words)
    assert done.code == 0, done.err
    return done.out


def _train(epalm: Epalm, lm: Path, media: Path, *words: object) -> dict[str, Any]:
    """Three steps on cached features, in the run `a`; its summary."""
    data = ("--data", media / "world", "--from-cache", "-m", media.name)
    sizes = ("model.tokens=2", "model.start=1", "model.end=3", "optim.max_steps=3", "optim.batch_size=4")
    settings = [word for size in (*sizes, f"lm.name={lm}") for word in ("--set", size)]
    summary: dict[str, Any] = json.loads(
        _done(epalm, "train", *data, "--recipe", "playground", "--run", "a", "--no-canary", "--json", *settings, *words)
    )
    return summary


def _whole_way(epalm: Epalm, lm: Path, media: Path, here: Path, *words: object) -> None:
    modality = media.name
    places = ("--data", media / "world", "-m", modality)
    _done(epalm, "extract", *places, "--weights", media / "weights", *BASE)
    assert _train(epalm, lm, media, *words)["steps"] == 3
    scores = json.loads(_done(epalm, "score", "--limit", 3, "--metrics", "exact match", "--split", "test", "--json"))
    assert scores["tasks"]["qa"]["figures"]["exact match"]["of"]
    _done(epalm, "export", "a", here / "exported")
    medium = next((media / "world" / "test").iterdir())
    asked = (medium, "what color is it?", "--run")
    expected = _done(epalm, "predict", *asked, "a").strip()
    chosen = here / "answers.txt"
    chosen.write_text("red\ntwo dogs\nthree small dogs\n")
    ranked = _done(epalm, "predict", *asked, "a", "--rank-answers", chosen).strip()
    assert ranked.splitlines()[-1].strip() in chosen.read_text().splitlines()
    shutil.rmtree(here / ".epalm")
    model = package.load(here / "exported", device="cpu")
    try:
        assert model.answer(medium, "what color is it?") == expected
        assert model.caption([medium, medium]) == [model.caption(medium)] * 2
    finally:
        model.close()
    assert _done(epalm, "predict", *asked, here / "exported").strip() == expected


@pytest.mark.slow
@pytest.mark.parametrize(("family", "modality"), PAIRS)
def test_from_media_to_answers(
    family: str, modality: Modality, epalm: Epalm, lms: Path, media: Path, here: Path
) -> None:
    _whole_way(epalm, lms / family, media / modality, here)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_chat_models_go_the_same_way(family: str, epalm: Epalm, lms: Path, media: Path, here: Path) -> None:
    _whole_way(epalm, lms / family, media / "image", here, *CHAT)


def test_a_run_keeps_its_text_format_and_is_named_by_it(epalm: Epalm, lms: Path, media: Path, here: Path) -> None:
    shutil.copytree(media / "image/cache", here / ".epalm/cache")
    _train(epalm, lms / "qwen2", media / "image", *CHAT)
    config = (here / ".epalm/runs/a/config.toml").read_text()
    assert "<|im_start|>user\\n{question}<|im_end|>" in config and 'eos = "<|im_end|>"' in config
    again = ("train", "--from-cache", "--data", media / "image/world", "--recipe", here / ".epalm/runs/a/config.toml")
    same, changed = (epalm(*again, "--run", "a", *more) for more in ((), ("--set", "text.caption=It shows")))
    assert same.code == 0 and "done already" in same.err, same.err
    assert changed.code == 1 and "text.caption" in changed.err


def test_norm_behind_the_connector_is_as_large_as_words_are(epalm: Epalm, lms: Path, media: Path, here: Path) -> None:
    """By default where a language model feels a token's scale; a run keeps it, and scoring has it."""
    shutil.copytree(media / "image/cache", here / ".epalm/cache")
    _train(epalm, lms / "olmo2", media / "image", "--set", "optim.peak_lr=0", "--set", "optim.warmup_lr=0",
           "--set", "optim.min_lr=0")  # fmt: skip
    run = here / ".epalm/runs/a"
    assert 'connector_norm = "rms"' in (run / "config.toml").read_text()
    checkpoint = run / "checkpoints" / (run / "checkpoints/latest").read_text().strip()
    weight = load_file(checkpoint / "trainable.safetensors")["connector.norm.weight"]
    words = load_file(lms / "olmo2/model.safetensors")["model.embed_tokens.weight"]
    torch.testing.assert_close(weight, torch.full_like(weight, float(words.square().mean().sqrt())), rtol=0.2, atol=0)
    _done(epalm, "score", "--limit", 2, "--metrics", "exact match", "--split", "test")
    _train(epalm, lms / "llama", media / "image", "--run", "b")
    assert "connector_norm" not in (here / ".epalm/runs/b/config.toml").read_text()
