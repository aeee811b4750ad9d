"""`epalm lms`: the families, and what one model is like, from its configuration alone."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from epalm.cli.lms import families
from tests.conftest import Epalm
from tests.tiny_gguf import BLOCKS, WIDTH, save_tiny_gguf

QWEN = {
    "model_type": "qwen2",
    "num_hidden_layers": 16,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "use_sliding_window": True,
    "sliding_window": 256,
    "max_window_layers": 12,
    "tie_word_embeddings": True,
}


def test_families_are_listed(epalm: Epalm) -> None:
    listed = epalm("lms")
    assert listed.code == 0 and all(name in listed.out for name in families())
    frame = pd.read_csv(io.StringIO(epalm("lms", "--format", "csv").out))
    assert list(frame["name"]) == list(families()) and set(frame["state"]) == {"tested", "refused"}


def test_a_model_is_described_without_weights(epalm: Epalm, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    record = json.loads(epalm("lms", tmp_path, "--json").out)
    assert (record["family"], record["state"], record["blocks"], record["hidden_size"]) == ("qwen2", "tested", 16, 64)
    assert (record["start"], record["end"], record["positions"]) == (3, 15, 512)
    assert (record["window"], record["window_blocks"]) == (256, [12, 13, 14, 15])
    block = 64 * (64 + 32 + 32) + (64 + 32 + 32) + 64 * 64 + 3 * 64 * 96 + 2 * 64
    assert record["parameters"] == 16 * block + 1000 * 64 + 64
    assert record["bytes"]["float32"] == 4 * record["parameters"] == 2 * record["bytes"]["bfloat16"]
    assert record["bytes"]["4bit"] < record["bytes"]["8bit"] < record["bytes"]["bfloat16"]
    shown = epalm("lms", tmp_path)
    assert "[12, 13, 14, 15]" in shown.out and "in bfloat16" in shown.out
    frame = pd.read_csv(io.StringIO(epalm("lms", tmp_path, "--format", "csv").out))
    assert frame["blocks"].tolist() == [16] and json.loads(frame["bytes"][0]) == record["bytes"]


def test_a_gguf_file_and_the_playgrounds_model_are_described(epalm: Epalm, tmp_path: Path) -> None:
    save_tiny_gguf(tmp_path / "tiny.gguf")
    record = json.loads(epalm("lms", tmp_path, "--json").out)
    assert (record["family"], record["blocks"], record["hidden_size"]) == ("llama", BLOCKS, WIDTH)
    assert json.loads(epalm("lms", "playground", "--json").out)["learnt_positions"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba"}, "family mamba"),
        ({"model_type": "t5"}, "is a t5, which is no decoder"),
        ({"model_type": "nothing"}, "holds no weights for the language model"),
    ],
)
def test_what_cannot_be_used_is_one_message(config: dict[str, str], message: str, epalm: Epalm, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = epalm("lms", tmp_path)
    assert done.code == 1 and done.err.count("error: ") == 1 and message in done.err and "Traceback" not in done.err
