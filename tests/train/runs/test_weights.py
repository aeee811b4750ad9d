"""Weights that are not whole are one message, which names the file, before anything is loaded; whole ones load."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlavaConfig, OPTConfig, OPTForCausalLM

from epalm.errors import UsageError
from epalm.extract.encoders.registry import EncoderChoice, build_encoder
from epalm.fingerprint import digest_tensors
from epalm.playground import weights_folder
from epalm.recipes.settings import LmSettings
from epalm.samples import Modality
from epalm.train.data.text import load_text_format
from epalm.train.lm.load import lm_config, load_lm
from epalm.train.runs import loading
from epalm.weights import Source
from tests.conftest import save_small_vit
from tests.shared_files import shared_case
from tests.small_models import save_small_ast, save_small_timesformer
from tests.trials import Trial

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5303133480\n"


def _save_lm(folder: Path, **options: Any) -> Path:
    shutil.copytree(weights_folder("lm"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    sizes: dict[str, Any] = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_attention_heads": 2}
    lm = OPTForCausalLM(OPTConfig.from_pretrained(folder, num_hidden_layers=2, **sizes))
    lm.save_pretrained(folder, **options)
    return folder


def _save_pickled_lm(folder: Path) -> Path:
    _save_lm(folder)
    torch.save(OPTForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def _load_encoder(kind: str) -> Callable[[Path], object]:
    return lambda folder: build_encoder(EncoderChoice(kind, str(folder), frames=None))


MODELS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "lm": (_save_lm, lambda folder: load_lm(str(folder))),
    "lm in parts": (lambda folder: _save_lm(folder, max_shard_size="20KB"), lambda folder: load_lm(str(folder))),
    "lm pickled": (_save_pickled_lm, lambda folder: load_lm(str(folder))),
    "vit": (lambda folder: save_small_vit(folder, depth=1), _load_encoder("vit")),
    "timesformer": (lambda folder: save_small_timesformer(folder, depth=1), _load_encoder("timesformer")),
    "ast": (lambda folder: save_small_ast(folder, depth=1), _load_encoder("ast")),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[..., Any]]:
    save, load = MODELS[request.param]
    return save(tmp_path_factory.mktemp("weights") / "model"), load


def _weights(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def _refused(folder: Path, load: Callable[..., Any]) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert caught.value.hint
    return caught.value.message


def test_whole_weights_load(model: tuple[Path, Callable[..., Any]]) -> None:
    folder, load = model
    assert load(folder) is not None


@given(st.data())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_ends_anywhere_else_is_named(model: tuple[Path, Callable[..., Any]], data: st.DataObject) -> None:
    folder, load = model
    path = data.draw(st.sampled_from([*_weights(folder), folder / "config.json"]))
    whole = path.read_bytes()
    end = min(data.draw(st.one_of(st.integers(0, 200), st.integers(1, len(whole)))), len(whole.rstrip()) - 1)
    longer = path.suffix == ".safetensors" and data.draw(st.booleans())
    path.write_bytes(whole + b"\0" * (end + 1) if longer else whole[:end])
    try:
        message = _refused(folder, load)
    finally:
        path.write_bytes(whole)
    assert str(path) in message or (path.suffix == ".bin" and str(folder) in message), message


def test_a_pointer_of_git_lfs_is_named(model: tuple[Path, Callable[..., Any]]) -> None:
    folder, load = model
    for path in (*_weights(folder), folder / "config.json"):
        whole = path.read_bytes()
        path.write_bytes(POINTER)
        try:
            assert f"{path} is a pointer of Git LFS" in _refused(folder, load)
        finally:
            path.write_bytes(whole)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = _save_lm(tmp_path / "lm", max_shard_size="20KB")
    part = _weights(folder)[1]
    part.rename(folder / "elsewhere")
    assert f"{part}, a part of the weights" in _refused(folder, lambda where: load_lm(str(where)))
    index = folder / "model.safetensors.index.json"
    wrong: tuple[Any, ...] = ({"a": "../elsewhere"}, {"a": 3}, [], None)
    for named in wrong:
        index.write_text(json.dumps({"weight_map": named}))
        assert str(index) in _refused(folder, lambda where: load_lm(str(where)))


def test_a_file_that_is_not_read_may_be_a_pointer(tmp_path: Path) -> None:
    folder = _save_lm(tmp_path / "lm")
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    assert load_lm(str(folder)) is not None


def _spoil_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    rules = json.loads((folder / "tokenizer.json").read_text())
    change(rules)
    (folder / "tokenizer.json").write_text(json.dumps(rules))


TOKENIZERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
    "half": (lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"), "holds no tokenizer"),
    "a pointer": (lambda folder: (folder / "tokenizer.json").write_bytes(POINTER), "tokenizer.json is a pointer"),
    "cut": (
        lambda folder: (folder / "tokenizer.json").write_bytes(b'{"version": "1.'),
        "tokenizer.json is cut",
    ),
    "of another form": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
    "empty": (lambda folder: _spoil_tokenizer(folder, _empty), "makes tokens of text"),
    "too large": (
        lambda folder: _spoil_tokenizer(folder, lambda rules: rules["model"]["vocab"].update(further=9000)),
        "ids up to 9,000",
    ),
    "another model's": (
        lambda folder: (folder / "tokenizer_config.json").write_text('{"eos_token": "a", "bos_token": "a"}'),
        "another model's tokenizer",
    ),
}


def _empty(rules: dict[str, Any]) -> None:
    rules["model"] |= {"vocab": {}, "merges": []}
    rules["added_tokens"] = []
    rules["post_processor"] = None


@pytest.mark.parametrize("how", TOKENIZERS)
def test_a_tokenizer_that_does_not_serve_is_one_message(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    shutil.copytree(weights_folder("lm"), folder)
    spoil, shown = TOKENIZERS[how]
    spoil(folder)
    for load in (load_text_format, lambda name: load_text_format(name, load_lm("playground"))):
        with pytest.raises(UsageError) as caught:
            load(str(folder))
        assert shown in caught.value.message and caught.value.hint, caught.value.message


@pytest.mark.parametrize(
    ("case", "shown"),
    [("no-tokenizer/opt", "opt holds no tokenizer"), ("lfs-pointer/opt-safetensors", "is a pointer of Git LFS")],
)
def test_the_commands_say_so_before_they_read_media(
    case: str, shown: str, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_case(case.partition("/")[0]) / case.partition("/")[2]

    def fail(*_words: object, **_options: object) -> None:
        raise AssertionError("media are read")

    if "pointer" in case:
        places = ("--data", trial.world, "--cache", trial.cache, "-m", Modality.IMAGE)
        refused = trial.epalm("extract", *places, "--weights", folder)
        assert refused.code == 1 and refused.err.count("error: ") == 1 and shown in refused.err
    monkeypatch.setattr("epalm.train.material.load_dataset", fail)
    words = ("--from-cache", "--data", trial.world, "--cache", trial.cache, "-m", "image", "--recipe", "playground")
    for plan in ((), ("--plan",)):
        refused = trial.epalm("train", *words, "--set", f"lm.name={folder}", *plan)
        assert refused.code == 1 and refused.err.count("error: ") == 1 and shown in refused.err
        assert "Traceback" not in refused.err and not Path(".epalm").exists()


def test_an_unchanged_language_model_is_hashed_once_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index, long_ago = _save_lm(tmp_path / "lm"), tmp_path / "lm-files.json", time.time() - 60
    lm, configured = load_lm(str(folder)), LmSettings(name=str(folder))
    expected, hashed = digest_tensors(lm.state_dict()), list[int]()

    def digest(tensors: Mapping[str, torch.Tensor]) -> str:
        hashed.append(len(tensors))
        return digest_tensors(tensors)

    monkeypatch.setattr(loading, "digest_tensors", digest)
    monkeypatch.setattr(loading, "_SETTLED", 3600.0)
    assert loading.lm_digest(lm, configured, index) == expected and not index.exists()  # written a moment ago
    monkeypatch.setattr(loading, "_SETTLED", -1.0)
    assert [loading.lm_digest(lm, configured, index) for _ in range(3)] == [expected] * 3 and len(hashed) == 2
    assert loading.lm_digest(lm, configured.model_copy(update={"dtype": "bfloat16"}), index) and len(hashed) == 3
    assert loading.lm_digest(lm, configured, index) == expected and len(hashed) == 4
    os.utime(folder / "model.safetensors", (long_ago, long_ago))
    assert loading.lm_digest(lm, configured, index) == expected and len(hashed) == 5
    index.write_text("torn")
    assert loading.lm_digest(lm, configured, index) == expected and len(hashed) == 6


def test_the_configuration_of_any_language_model_is_read(tmp_path: Path) -> None:
    text = LlamaConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2)
    for name, config in (("plain", text), ("multimodal", LlavaConfig(text_config=text.to_dict()))):
        config.save_pretrained(tmp_path / name)
        read = lm_config(Source(str(tmp_path / name)))
        assert (read.model_type, read.num_hidden_layers) == ("llama", 3)
