"""Checkpoints of the public implementation become runs with its numbers; what cannot is refused in one message."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM

from epalm.playground import weights_folder
from epalm.train.lm.adapters import Adapters
from epalm.train.runs.loading import load_run
from epalm.train.runs.run_folder import RunFolder
from tests.augmented_models import all_logits
from tests.conftest import Epalm
from tests.extract.encoders.families import token_of

PARITY = Path(__file__).parents[3].parent / "shared" / "parity"
MODELS = ("epalm", "epalm_pt", "epalm_lin")
pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"reference numbers are not at {PARITY}")


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Language model and encoder of each published model, as folders in the usual forms."""
    folders = {}
    for name in MODELS:
        root = tmp_path_factory.mktemp(name)
        meta = json.loads((PARITY / name / "meta.json").read_text())
        state = load_file(PARITY / name / "state.safetensors")
        lm = OPTForCausalLM(OPTConfig(**meta["lm"]))
        lm.load_state_dict(_part(state, "model_text."))
        lm.save_pretrained(root / "lm")
        for file in weights_folder("lm").glob("tokenizer*"):
            text = file.read_text()
            (root / "lm" / file.name).write_text(_small(text) if file.name == "tokenizer.json" else text)
        (root / "vit").mkdir()
        vit = {name: value for name, value in _part(state, "model_vision.").items() if not name.startswith("head.")}
        save_file(vit, root / "vit/model.safetensors")
        pixels = {"input_size": [3, 32, 32], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
        config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": meta["encoder"]}
        (root / "vit/config.json").write_text(json.dumps({**config, "pretrained_cfg": pixels}))
        folders[name] = (root / "lm", root / "vit")
    return folders


def _small(tokenizer: str) -> str:
    """The playground's tokenizer without the words that these models have no row for."""
    content = json.loads(tokenizer)
    content["model"]["vocab"] = {word: n for word, n in content["model"]["vocab"].items() if n < 500}
    content["model"]["merges"] = [m for m in content["model"]["merges"] if "".join(m) in content["model"]["vocab"]]
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 500]
    return json.dumps(content)


@pytest.fixture
def bring(epalm: Epalm, frozen: dict[str, tuple[Path, Path]], tmp_path: Path) -> Callable[..., Any]:
    def run(file: Path, name: str = "epalm", *words: object) -> Any:
        lm, vit = frozen[name]
        places = ("--runs", tmp_path / "runs", "--run", "mine", "--set", f"lm.name={lm}", "--weights", vit)
        return epalm("import", file, *places, *words)

    return run


@pytest.mark.parametrize("name", MODELS)
def test_a_published_checkpoint_gives_the_published_logits(
    name: str, bring: Callable[..., Any], epalm: Epalm, tmp_path: Path
) -> None:
    done = bring(PARITY / name / "published.pth", name)
    assert done.code == 0, done.err
    run = RunFolder(tmp_path / "runs/mine")
    loaded = load_run(run, device="cpu")
    data = load_file(PARITY / name / "io.safetensors")
    mask = data["attention_mask"]
    with torch.no_grad():
        logits = all_logits(loaded.model, data["cls"][:, -4:].unsqueeze(2), data["input_ids"], mask)
    real = torch.cat((mask.new_ones(len(mask), loaded.model.lm.front), mask), 1).bool()
    assert (logits - data["logits"])[real].abs().max() <= 1e-4
    model = run.config.model
    assert (model.attention, model.tokens, model.start, model.end) == ("reference", 4, 3, 7)
    assert run.config.decode.num_beams == 1 and run.inputs["imported"]["epoch"] == 7

    from epalm.extract.live import rebuild_encoder

    encoder = rebuild_encoder(run.inputs["features"], "cpu")
    assert (token_of(encoder, data["image"]) - data["cls"]).abs().max() <= 1e-4
    np.testing.assert_allclose(encoder.input.describe()["mean"], [0.48145466, 0.4578275, 0.40821073])


def test_it_predicts_and_scores(bring: Callable[..., Any], epalm: Epalm, tmp_path: Path) -> None:
    assert bring(PARITY / "epalm/published.pth").code == 0
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    runs = ("--runs", tmp_path / "runs")
    answered = epalm("predict", tmp_path / "red.png", "what color is it?", *runs)
    assert answered.code == 0, answered.err
    unnamed = epalm("score", *runs)
    assert unnamed.code == 1 and "--data" in unnamed.err
    row = {"modality": "image", "media": "red.png", "task": "qa", "split": "test", "prompt": "color?"}
    (tmp_path / "data.jsonl").write_text(json.dumps({**row, "answers": {"red": 1.0}}) + "\n")
    scored = epalm("score", *runs, "--data", tmp_path / "data.jsonl", "--json")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["tasks"]["qa"]["scored"] == 1


def _content() -> dict[str, Any]:
    content: dict[str, Any] = torch.load(PARITY / "epalm_lin/published.pth", weights_only=True)
    return content


def _with_adapters(both_names: bool = True) -> tuple[dict[str, Any], Adapters]:
    torch.manual_seed(3)
    adapters = Adapters(8, 64, 4)
    content = _content()
    names = ("model_text.model.decoder.layers.", *(["transformer."] if both_names else []))
    for prefix in names:
        for block, pair in enumerate(adapters):
            for place, ours in (("self_attn", "attention"), ("fc2.1", "feed_forward")):
                for number, side in (("0", "down"), ("2", "up")):
                    for kind in ("weight", "bias"):
                        tensor = pair.get_parameter(f"{ours}.{side}.{kind}").detach()
                        content["model"][f"{prefix}{block}.{place}.adapter.{number}.{kind}"] = tensor
    form = {"adapter_type": "normal", "downsample_factor": 4}
    content["config"] |= {"use_adapters": True, "adapter_config": {"mlp": form, "attention": dict(form)}}
    return content, adapters


@pytest.mark.parametrize("both_names", [True, False])
def test_adapters_come_along(bring: Callable[..., Any], tmp_path: Path, both_names: bool) -> None:
    content, adapters = _with_adapters(both_names)
    torch.save(content, tmp_path / "ada.pth")
    done = bring(tmp_path / "ada.pth", "epalm_lin")
    assert done.code == 0, done.err
    loaded = load_run(RunFolder(tmp_path / "runs/mine"), device="cpu")
    kept = loaded.model.adapters
    assert kept is not None and loaded.config.model.adapter_factor == 4
    assert all(torch.equal(kept.state_dict()[name], value) for name, value in adapters.state_dict().items())


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _broken(root: Path) -> Iterator[tuple[str, Any, str, tuple[object, ...]]]:
    """What it is, what is saved, what is told, and further words."""
    yield "code", {**_content(), "best_valid": _Evil(root / "touched")}, "could run code", ()
    yield "no checkpoint", [1, 2], "no published checkpoint", ()
    content = _content()
    del content["model"]["connector.0.bias"]
    yield "missing", content, "lacks connector.0.bias", ()
    content = _content()
    content["model"]["connector.0.weight"] = torch.ones(64, 47)
    yield "width", content, "width 47", ()
    content = _content()
    content["model"]["connector.0.bias"] = torch.ones(63)
    yield "shape", content, "of another model: connector.bias", ()
    content = _content()
    content["model"]["connector.0.weight"], content["model"]["connector.0.bias"] = torch.ones(32, 48), torch.ones(32)
    yield "other language model", content, "language model of width 32", ()
    content = _content()
    content["config"]["end_layer_idx"] = 31
    yield "deeper language model", content, "of 8 blocks", ()
    content = _content()
    content["model"]["something.weight"] = torch.ones(2)
    yield "unknown", content, "something.weight", ()
    content = _content()
    content["config"] |= {"prompt_tuning": True}
    yield "no prompt", content, "of another model: prompt.embedding", ()
    content = _content()
    content["config"] |= {"prompt_tuning": True, "deep": True, "text_step": 2}
    yield "other forms", content, "text_step 2, deep True", ()
    content = torch.load(PARITY / "epalm_pt/published.pth", weights_only=True)
    content["config"]["prompt_len"] = 10**9
    yield "longer prompt", content, "another prompt", ()
    content = _content()
    content["config"] |= {"unfreeze_text_model": True}
    yield "unfrozen", content, "unfreeze_text_model", ()
    content = _content()
    content["config"]["injected_hidden_states"] = "four"
    yield "no count", content, "model.tokens", ()
    content, _ = _with_adapters()
    content["config"]["adapter_config"]["mlp"]["adapter_type"] = "parallel"
    yield "parallel", content, "another form", ()
    content, _ = _with_adapters()
    content["model"]["transformer.0.fc2.1.adapter.0.bias"] = torch.ones(16)
    yield "two truths", content, "two different", ()
    content, _ = _with_adapters()
    content["model"] = {name: t for name, t in content["model"].items() if ".7." not in name}
    yield "adapters of another depth", content, "does not fit", ()


CASES = [
    "code", "no checkpoint", "missing", "width", "shape", "other language model", "deeper language model", "unknown",
    "no prompt", "other forms", "longer prompt", "unfrozen", "no count", "parallel", "two truths",
    "adapters of another depth",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_taken_over_is_one_message(case: str, bring: Callable[..., Any], tmp_path: Path) -> None:
    cases = {name: rest for name, *rest in _broken(tmp_path)}
    assert list(cases) == CASES
    content, message, words = cases[case]
    torch.save(content, tmp_path / "bad.pth")
    done = bring(tmp_path / "bad.pth", "epalm_lin", *words)
    assert done.code == 1
    assert message in done.err and done.err.count("error: ") == 1 and "Traceback" not in done.err
    assert not (tmp_path / "touched").exists() and not (tmp_path / "runs/mine").exists()


@pytest.mark.parametrize("how", ["absent", "empty", "torn", "text", "pickle", "folder"])
def test_files_that_are_none_are_one_message(how: str, bring: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    if how == "torn":
        shutil.copy(PARITY / "epalm/published.pth", path)
        path.write_bytes(path.read_bytes()[:3000])
    elif how == "folder":
        path.mkdir()
    elif how != "absent":
        path.write_bytes({"empty": b"", "text": b"hello\n", "pickle": pickle.dumps(_Evil(tmp_path / "touched"))}[how])
    done = bring(path)
    assert done.code == 1 and done.err.count("error: ") == 1 and "Traceback" not in done.err
    assert not (tmp_path / "touched").exists()
