"""A bridge is one file: nothing else lists it, and settings pick it by its name."""

from pathlib import Path

import pytest
import torch

from epalm.errors import UsageError
from epalm.recipes.config import load_config
from epalm.train import bridge
from epalm.train.bridge import build
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.load import load_lm

WIDTH, TOKENS = 96, 2
MEAN = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self, groups, width, hidden_size):
        super().__init__()
        self.linear = nn.Linear(width, hidden_size)

    def forward(self, rows):
        return self.linear(rows.mean(2, keepdim=True))

BRIDGES = {"mean": Mean}
"""


def _model(connector: str) -> EpalmModel:
    config = load_config("playground", ["model.variant=epalm-lin", f"model.connector={connector}"]).resolved(8)
    return build.build_model(config, load_lm("playground"), WIDTH)


def test_a_bridge_is_one_file_and_settings_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mean_bridge.py").write_text(MEAN)
    monkeypatch.setattr(bridge, "__path__", [*bridge.__path__, str(tmp_path)])
    monkeypatch.setattr(build, "bridges", build.bridges.__wrapped__)
    model = _model("mean")
    assert list(model.trainable_tensors()) == ["connector.linear.weight", "connector.linear.bias"]
    rows, ids = torch.randn(2, TOKENS, 4, WIDTH), torch.randint(4, 100, (2, 5))
    assert model(rows, ids).shape[:2] == (2, 5)
    with pytest.raises(UsageError, match="'means' is no bridge"):
        _model("means")
