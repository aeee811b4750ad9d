"""A language model in a GGUF file: configuration, tensors and tokenizer, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from epalm.errors import UsageError
from epalm.recipes.settings import LmSettings
from epalm.train.lm.load import lm_config, lm_source, load_lm
from epalm.train.runs.loading import lm_digest
from epalm.weights import from_pretrained
from tests.tiny_gguf import BLOCKS, WIDTH, save_tiny_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    torch.save(save_tiny_gguf(folder / "tiny.gguf"), folder / "expected.tensors")
    return folder


def test_tensors_are_the_dequantized_ones(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = lm_source(str(folder))
    config = lm_config(source)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("llama", BLOCKS, WIDTH)
    lm = from_pretrained(AutoModelForCausalLM, source, "language model", config)
    expected = torch.load(folder / "expected.tensors", weights_only=True)
    tensors = lm.state_dict()
    assert set(tensors) - set(expected) == {"lm_head.weight"}
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)
    assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    assert not "".join(capfd.readouterr())


def test_tokenizer_is_the_files(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(**lm_source(str(folder)).location(), trust_remote_code=False)
    text = "Question: what colour is it? Answer: red"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) < len(text) / 2 and tokenizer.decode(ids) == text
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_digest_follows_the_file(folder: Path, tmp_path: Path) -> None:
    source, settings = lm_source(str(folder)), LmSettings(name=str(folder))
    lm: Any = from_pretrained(AutoModelForCausalLM, source, "language model", lm_config(source))
    digest = lm_digest(lm, settings, tmp_path / "index.json")
    save_tiny_gguf(tmp_path / "other.gguf", seed=1)
    other = lm_source(str(tmp_path))
    changed: Any = from_pretrained(AutoModelForCausalLM, other, "language model", lm_config(other))
    assert lm_digest(changed, LmSettings(name=str(tmp_path)), tmp_path / "index.json") != digest
    assert lm_digest(lm, settings, tmp_path / "index.json") == digest


def test_several_files_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes((folder / "tiny.gguf").read_bytes())
    with pytest.raises(UsageError, match=r"has 2 GGUF files: a\.gguf, b\.gguf"):
        lm_config(lm_source(str(tmp_path)))


def test_the_package_is_named_where_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="needs gguf") as caught:
        lm_config(lm_source(str(folder)))
    assert caught.value.hint == "pip install 'epalm[gguf]'"


def test_damaged_files_and_pointers_are_named(folder: Path, tmp_path: Path) -> None:
    whole, path = (folder / "tiny.gguf").read_bytes(), tmp_path / "tiny.gguf"
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (whole[:100], "holds no weights for the language model"),
        (b"GGUF", "holds no weights for the language model"),
        (b"", "holds no weights for the language model"),
        (whole.replace(b"llama", b"lumma"), "holds no weights for the language model"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message) as caught:
            lm_config(lm_source(str(tmp_path)))
        assert "again" in (caught.value.hint or "") or "git lfs" in (caught.value.hint or "")
    path.write_bytes(whole[: len(whole) * 3 // 4])
    source = lm_source(str(tmp_path))
    with pytest.raises(UsageError, match="holds no weights for the language model"):
        from_pretrained(AutoModelForCausalLM, source, "language model", lm_config(source))


def test_quantized_weights_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="dequantized when they are loaded"):
        load_lm(str(folder), quantized="4bit")


def test_other_weights_beside_the_file_are_taken(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes((folder / "tiny.gguf").read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert lm_source(str(tmp_path)).gguf is None
