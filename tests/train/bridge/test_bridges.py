"""A bridge is one file: nothing else lists it, and settings pick it by its name."""

from pathlib import Path

import pytest
import torch

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.recipes.config import load_config, read_config
from epalm.train import bridge
from epalm.train.bridge import registry
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.bridge.registry import encoding_for, rule_for, with_bridge
from epalm.train.lm.load import load_lm

WIDTH, TOKENS = 96, 2
MEAN = """
import torch
from torch import nn

from epalm.recipes.settings import Section
from epalm.train.bridge.registry import Bridge

class Mean(nn.Module):
    front = 1

    def __init__(self, layers, layout, width, hidden_size, bias=True):
        super().__init__()
        self.groups = layers
        self.linear = nn.Linear(width, hidden_size, bias=bias)

    def forward(self, rows):
        return self.linear(rows.mean(2, keepdim=True))

class Settings(Section):
    bias: bool = True

BRIDGES = {"mean": Bridge(Mean, ("all",), "none", layers=2, prompt=("plain", 3), settings=Settings)}
"""


def _model(*overrides: str) -> EpalmModel:
    config = with_bridge(load_config("playground", ["model.bridge=mean", *overrides]), 8).resolved(8)
    return build_model(config, load_lm("playground"), WIDTH)


@pytest.fixture(autouse=True)
def mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge of another package: one file."""
    (tmp_path / "mean_bridge.py").write_text(MEAN)
    monkeypatch.setattr(bridge, "__path__", [*bridge.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "bridges", registry.bridges.__wrapped__)


def test_a_bridge_is_one_file_and_settings_name_it() -> None:
    model = _model()
    assert list(model.trainable_tensors()) == ["connector.linear.weight", "connector.linear.bias", "prompt.embedding"]
    rows, ids = torch.randn(2, TOKENS, 4, WIDTH), torch.randint(4, 100, (2, 5))
    assert model(rows, ids).shape[:2] == (2, 5)
    assert "connector.linear.bias" not in _model("bridge.bias=false").trainable_tensors()


def test_what_a_bridge_says_is_taken_unless_settings_do() -> None:
    config = with_bridge(load_config("playground", ["model.bridge=mean"]))
    assert (config.model.tokens, config.model.prompt, config.model.prompt_length) == (2, "plain", 3)
    assert config.model.start is None and config.bridge == {"bias": True}
    placed = with_bridge(config, 8).resolved(8)
    assert (placed.model.start, placed.model.end, placed.model.exit) == (0, 1, None)
    assert with_bridge(read_config(placed.to_toml(), "run"), 8).resolved(8) == placed
    own = ["model.bridge=mean", "model.tokens=4", "model.prompt_length=7", "model.start=2", "model.end=5"]
    model = with_bridge(load_config("playground", own), 8).resolved(8).model
    assert (model.tokens, model.prompt_length, model.start, model.end) == (4, 7, 2, 5)


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["limber", "model.start=0"], (0, 1, None)),
        (["limber", "model.end=2"], (0, 2, None)),
        (["qp-inner", "model.start=18"], (18, 29, 29)),
        (["qp-inner", "model.end=29"], (17, 29, 29)),
        (["qp-inner", "model.end=31"], (19, 31, 31)),
        (["qp-inner", "model.exit=32"], (17, 29, 32)),
        (["cross-attention", "model.end=32"], (20, 32, None)),
    ],
)
def test_one_place_that_settings_say_leaves_the_bridges_others(
    words: list[str], places: tuple[int | None, ...]
) -> None:
    bridge, setting = words
    model = with_bridge(load_config("own", [f"model.bridge={bridge}", setting]), 32).resolved(32).model
    assert (model.start, model.end, model.exit) == places


def test_faults_of_a_bridge_are_one_message() -> None:
    with pytest.raises(UsageError, match="'means' is no bridge"):
        _model("model.bridge=means")
    with pytest.raises(UsageError, match=r"bridge\.bias: .*bridge\.width: ") as caught:
        _model("bridge.bias=wide", "bridge.width=4")
    assert caught.value.hint == "settings of bridge mean: bias"


def test_rows_that_a_bridge_cannot_read_are_refused_with_what_would_make_them() -> None:
    config = with_bridge(load_config("playground", ["model.bridge=mean"]))
    assert rule_for(config, "all", TokenLayout(True, (4, 4))) == "all"
    with pytest.raises(UsageError, match="mean reads all tokens, and these features have cls") as caught:
        rule_for(config, "cls", TokenLayout(True, ()))
    assert caught.value.hint == "epalm extract --layers last:2 --tokens all"
    assert encoding_for(config).encoder.tokens == "all"  # of an encoder in the loop
    assert encoding_for(load_config("playground")).encoder.tokens is None
    assert rule_for(load_config("playground"), "all", TokenLayout(True, (4, 4))) == "cls"
    assert rule_for(load_config("playground"), "all", TokenLayout(False, (4, 4))) == "mean"
