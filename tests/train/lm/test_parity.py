"""Logits, losses and decoded ids of the paper's own implementation, reproduced."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import OPTConfig, OPTForCausalLM

from epalm.evaluate.decoding.generate import generate
from epalm.train.bridge.epalm import Connector
from epalm.train.bridge.model import EpalmModel, Prompt
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.injection import Injection
from epalm.train.lm.loss import IGNORED
from tests.augmented_models import all_logits

PARITY = Path(__file__).parents[3].parent / "shared" / "parity"
MODELS = ("epalm", "epalm_pt", "epalm_lin")
pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"reference numbers are not at {PARITY}")


def _model(folder: Path) -> tuple[EpalmModel, dict[str, Any]]:
    meta = json.loads((folder / "meta.json").read_text())
    state = load_file(folder / "state.safetensors")
    plain = OPTForCausalLM(OPTConfig(**meta["lm"]))
    own = {name.removeprefix("model_text."): value for name, value in state.items() if name.startswith("model_text.")}
    plain.load_state_dict(own)
    setting, form = meta["injection"], meta["prompt"]
    lm = InjectedLM(
        plain,
        Injection(setting["tokens"], setting["start"], setting["end"], setting["attention"]),
        form["length"] if form else 0,
    )
    width, hidden = meta["encoder"]["embed_dim"], meta["lm"]["hidden_size"]
    connector = Connector(setting["tokens"], None, width, hidden, shared=setting["shared_connector"])
    layers = range(1 if setting["shared_connector"] else setting["tokens"])
    name = "connector.{}." if "connector.0.weight" in state else "connector."
    connector.weight.data = torch.stack([state[name.format(layer) + "weight"] for layer in layers])
    connector.bias.data = torch.stack([state[name.format(layer) + "bias"] for layer in layers])
    prompt = None
    if form:
        trained = {k.removeprefix("prompt_module.prefix_embedding."): v for k, v in state.items() if "prompt_mod" in k}
        prompt = Prompt(form["length"], meta["lm"]["word_embed_proj_dim"], mlp=form["mlp"])
        prompt.embedding.data = trained["0.weight" if form["mlp"] else next(iter(trained))]
        for mine, theirs in (("inner", "1"), ("outer", "3")) if form["mlp"] else ():
            getattr(prompt, mine).weight.data = trained[f"{theirs}.weight"]
            getattr(prompt, mine).bias.data = trained[f"{theirs}.bias"]
    return EpalmModel(lm, connector, prompt).eval(), meta


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[EpalmModel, dict[str, Any], dict[str, torch.Tensor], Path]:
    folder = PARITY / request.param
    model, meta = _model(folder)
    return model, meta, load_file(folder / "io.safetensors"), folder


Case = tuple[EpalmModel, dict[str, Any], dict[str, torch.Tensor], Path]


def _features(meta: dict[str, Any], data: dict[str, torch.Tensor]) -> torch.Tensor:
    return data["cls"][:, -meta["injection"]["tokens"] :].unsqueeze(2)


def test_logits_and_losses(case: Case) -> None:
    model, meta, data, _ = case
    features, ids, mask = _features(meta, data), data["input_ids"], data["attention_mask"]
    with torch.no_grad():
        logits = all_logits(model, features, ids, mask)
        text = model(features, ids, mask)
    assert logits.shape == data["logits"].shape
    real = torch.cat((mask.new_ones(len(mask), model.lm.front), mask), 1).bool()
    assert (logits - data["logits"])[real].abs().max() <= 1e-4
    torch.testing.assert_close(
        text, logits[:, model.lm.front :], atol=1e-5, rtol=0
    )  # the same rows of smaller products
    losses = model.losses(features, ids, mask, ids.masked_fill(mask == 0, IGNORED)).loss
    torch.testing.assert_close(losses, data["loss"], atol=1e-4, rtol=0)


def test_gradients(case: Case) -> None:
    model, meta, data, folder = case
    expected = load_file(folder / "grads.safetensors")
    model.zero_grad()
    labels = data["input_ids"].masked_fill(data["attention_mask"] == 0, IGNORED)
    losses = model.losses(_features(meta, data), data["input_ids"], data["attention_mask"], labels).loss
    (0.1 * losses.sum() / 3).backward()
    theirs = {
        "prompt.embedding": "prompt_module.prefix_embedding.0.weight",
        "prompt.inner": "prompt_module.prefix_embedding.1",
        "prompt.outer": "prompt_module.prefix_embedding.3",
    }
    seen = {"loss"}
    for name, tensor in model.trainable_tensors().items():
        part, _, kind = name.rpartition(".")
        if part == "connector":
            names = [f"connector.{layer}.{kind}" for layer in range(len(tensor))]
            wanted = torch.stack([expected[one] for one in names])
        else:
            names = [theirs[name] if name in theirs else f"{theirs[part]}.{kind}"]
            wanted = expected[names[0]]
        torch.testing.assert_close(tensor.grad, wanted, atol=1e-4, rtol=0)
        seen.update(names)
    assert seen == expected.keys()
    assert all(parameter.grad is None for parameter in model.lm.parameters())


@pytest.mark.parametrize(("name", "beams"), [("gen_greedy", 1), ("gen_beam3", 3)])
def test_decoded_ids(case: Case, name: str, beams: int) -> None:
    model, meta, data, _ = case
    length = meta["generation"]["max_length"]
    given = data["gen_prompt"]
    produced = generate(model, _features(meta, data), given, num_beams=beams, max_length=length)
    for row, ours, theirs in zip(given.tolist(), produced, data[name].tolist(), strict=True):
        assert row + ours == theirs[: len(row) + len(ours)]
        assert set(theirs[len(row) + len(ours) :]) <= {1}  # nothing but padding is missing
