"""What each variant trains: which tensors, how many numbers, with the right gradients, and nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from epalm.errors import UsageError
from epalm.fingerprint import digest_tensors
from epalm.recipes.config import Config, load_config
from epalm.recipes.settings import OptimSettings
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch
from epalm.train.lm.load import load_lm
from epalm.train.loop import make_optimiser, take_step

WIDTH, HIDDEN, BLOCKS, TOKENS, LENGTH = 96, 128, 8, 2, 4  # of the playground's
CONNECTOR = ["connector.weight", "connector.bias"]
MLP = [f"prompt.{layer}.{kind}" for layer in ("inner", "outer") for kind in ("weight", "bias")]
ADAPTERS = [
    f"adapters.{block}.{place}.{layer}.{kind}"
    for block in range(BLOCKS)
    for place in ("attention", "feed_forward")
    for layer in ("down", "up")
    for kind in ("weight", "bias")
]
LORA = [
    f"lora.model.decoder.layers.{block}.self_attn.{projection}.lora_{side}.weight"
    for block in range(BLOCKS)
    for projection in ("v_proj", "q_proj")
    for side in "AB"
]
ONE = WIDTH * HIDDEN + HIDDEN  # a linear layer of the connector
DENSE = HIDDEN * HIDDEN + HIDDEN
NARROW = 2 * HIDDEN * (HIDDEN // 8) + HIDDEN + HIDDEN // 8  # a bottleneck


def _build(*overrides: str, lm: PreTrainedModel | None = None) -> EpalmModel:
    lm = lm or load_lm("playground")
    return build_model(load_config("playground", overrides).resolved(lm.config.num_hidden_layers), lm, WIDTH)


CASES: dict[str, tuple[Sequence[str], Sequence[str], int]] = {
    "epalm-lin": (["model.variant=epalm-lin"], CONNECTOR, ONE),
    "epalm-pt": (["model.variant=epalm-pt"], [*CONNECTOR, "prompt.embedding"], ONE + LENGTH * HIDDEN),
    "epalm-pt-l": (["model.variant=epalm-pt-l"], [*CONNECTOR, "prompt.embedding"], ONE + LENGTH * HIDDEN),
    "epalm": ([], [*CONNECTOR, "prompt.embedding", *MLP], TOKENS * ONE + LENGTH * HIDDEN + 2 * DENSE),
    "epalm-ada": (["model.variant=epalm-ada"], [*CONNECTOR, *ADAPTERS], TOKENS * ONE + 2 * BLOCKS * NARROW),
    "deep prompt": (
        ["model.deep_prompt=true", "model.prompt_length=3"],
        [*CONNECTOR, "prompt.embedding", *MLP],
        TOKENS * ONE + BLOCKS * 3 * HIDDEN + 2 * DENSE,
    ),
    "everything": (
        ["model.variant=epalm-ada", "model.prompt=plain", "model.deep_prompt=true", "model.connector=shared"],
        [*CONNECTOR, "prompt.embedding", *ADAPTERS],
        ONE + BLOCKS * LENGTH * HIDDEN + 2 * BLOCKS * NARROW,
    ),
    "more tokens": (
        ["model.tokens=3", "model.start=1", "model.end=7"],
        [*CONNECTOR, "prompt.embedding", *MLP],
        3 * ONE + LENGTH * HIDDEN + 2 * DENSE,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_trained_tensors_are_exactly_these(name: str) -> None:
    overrides, names, count = CASES[name]
    model = _build(*overrides)
    tensors = model.trainable_tensors()
    assert list(tensors) == list(names)
    assert sum(tensor.numel() for tensor in tensors.values()) == count
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert {id(t) for t in tensors.values()} == {id(p) for p in model.parameters() if p.requires_grad}


def _batches(count: int) -> Iterator[Batch]:
    for seed in range(count):
        torch.manual_seed(seed)
        ids = torch.randint(3, 500, (4, 9))
        yield Batch(torch.randn(4, 6, 1, WIDTH), ids, None, ids, 4, 4)


def _train(model: EpalmModel, steps: int, *, rate: float = 1e-3) -> list[float]:
    optim = OptimSettings(peak_lr=rate, fixed_lr=rate, lm_lr=rate, encoder_lr=rate)
    optimiser = make_optimiser(model.train(), optim)
    tokens = model.layers
    losses = []
    for batch in _batches(steps):
        cut = Batch(batch.features[:, -tokens:], batch.input_ids, None, batch.labels, 4, 4)
        losses.append(float(take_step(model, optimiser, cut, optim)[0]))
    return losses


@pytest.mark.parametrize("name", CASES)
def test_training_changes_every_trained_tensor_and_no_other(name: str) -> None:
    model = _build(*CASES[name][0])
    before = {key: tensor.detach().clone() for key, tensor in model.trainable_tensors().items()}
    frozen = digest_tensors(model.lm.state_dict())
    _train(model, 3)
    assert digest_tensors(model.lm.state_dict()) == frozen
    same = [key for key, tensor in model.trainable_tensors().items() if torch.equal(tensor, before[key])]
    assert not same


def test_an_unfrozen_language_model_is_trained_at_its_own_rate() -> None:
    model = _build("lm.train=true")
    own = {f"lm.{name}" for name, _ in model.lm.plain.named_parameters()}
    assert set(model.trainable_tensors()) == own | {*CONNECTOR, "prompt.embedding", *MLP}
    optim = OptimSettings(peak_lr=1e-5, fixed_lr=2e-5, lm_lr=3e-5, encoder_lr=4e-5)
    groups = make_optimiser(model, optim).param_groups
    assert [group["lr"] for group in groups] == [1e-5, 2e-5, 3e-5]
    assert [len(group["params"]) for group in groups] == [2, 5, len(own)]
    before = {name: tensor.detach().clone() for name, tensor in model.trainable_tensors().items()}
    _train(model, 1)
    same = {name for name, tensor in model.trainable_tensors().items() if torch.equal(tensor, before[name])}
    assert not same
    again = _build("lm.train=true")
    again.load_trainable({name: tensor.detach() for name, tensor in model.trainable_tensors().items()})
    assert digest_tensors(again.lm.state_dict()) == digest_tensors(model.lm.state_dict())


def _tiny(*overrides: str, seed: int = 0) -> EpalmModel:
    """In float64, with weights large enough that a wrong gradient is seen."""
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=23,
        hidden_size=8,
        word_embed_proj_dim=4,  # narrower words, as OPT-350M
        num_hidden_layers=3,
        num_attention_heads=2,
        ffn_dim=12,
        max_position_embeddings=32,
        do_layer_norm_before=False,
    )
    shape = ["model.tokens=2", "model.start=1", "model.end=2", "model.prompt_length=2", "model.adapter_factor=4"]
    settings = load_config("playground", [*shape, *overrides]).resolved(3)
    model = build_model(settings, OPTForCausalLM(config).eval(), 5).double()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.mul_(200 if "adapters" in name else 5 if name.startswith("lm.") else 1)
    return model


@pytest.mark.parametrize("attention", ["causal", "reference"])
@pytest.mark.parametrize(
    "overrides",
    [
        ["model.variant=epalm-lin"],
        ["model.variant=epalm-pt"],
        [],
        ["model.variant=epalm-ada"],
        ["model.deep_prompt=true"],
        ["model.variant=epalm-ada", "model.prompt=plain", "model.deep_prompt=true"],
        ["lm.train=true"],
    ],
    ids=["lin", "pt", "epalm", "ada", "deep", "ada and deep", "lm"],
)
def test_gradients_are_those_of_finite_differences(overrides: list[str], attention: str) -> None:
    model = _tiny(*overrides, f"model.attention={attention}")
    features, ids = torch.randn(2, 2, 1, 5).double(), torch.randint(3, 23, (2, 4))
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])

    def loss() -> torch.Tensor:
        logits = model(features, ids, mask)[:, :-1].log_softmax(-1)
        summed: torch.Tensor = -logits.gather(2, ids[:, 1:, None]).squeeze(2)[mask[:, 1:].bool()].sum()
        return summed

    value = loss()
    value.backward()
    step = 1e-6
    for name, tensor in model.trainable_tensors().items():
        assert tensor.grad is not None, name
        torch.manual_seed(1)
        for place in torch.randperm(tensor.numel())[:6].tolist():
            flat = tensor.data.view(-1)
            kept = float(flat[place])
            ends = []
            for shift in (step, -step):
                flat[place] = kept + shift
                with torch.no_grad():
                    ends.append(float(loss()))
            flat[place] = kept
            difference = (ends[0] - ends[1]) / (2 * step)
            assert float(tensor.grad.view(-1)[place]) == pytest.approx(difference, rel=1e-4, abs=1e-6), name


def test_fresh_adapters_are_almost_the_identity_and_within_their_bounds() -> None:
    model, plain = _build("model.variant=epalm-ada"), _build("model.variant=epalm-ada", "model.adapters=none")
    drawn = torch.cat([tensor.detach().view(-1) for tensor in model.adapters.parameters()])  # type: ignore[union-attr]
    assert float(drawn.abs().max()) == pytest.approx(2e-3)
    assert float(drawn.std()) == pytest.approx(0.959e-3, rel=0.02)  # a normal distribution clipped at 2 σ
    (batch,) = _batches(1)
    with torch.no_grad():
        logits = [one(batch.features[:, -TOKENS:], batch.input_ids) for one in (model, plain)]
    torch.testing.assert_close(*logits, atol=0.1, rtol=0.01)
    assert not torch.equal(*logits)


def test_a_model_built_anew_drops_the_adapters_of_the_one_before() -> None:
    lm = load_lm("playground")
    _build("model.variant=epalm-ada", lm=lm)
    again, plain = _build("model.variant=epalm-lin", lm=lm), _build("model.variant=epalm-lin")
    (batch,) = _batches(1)
    with torch.no_grad():
        ours, theirs = (one(batch.features[:, -TOKENS:], batch.input_ids) for one in (again, plain))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variant", ["epalm", "epalm-ada"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_about_the_gradients_of_full(variant: str, dtype: str) -> None:
    gradients = []
    for chosen in ("float32", dtype):
        model = _build(f"model.variant={variant}", lm=load_lm("playground", chosen))
        (batch,) = _batches(1)
        cut = Batch(batch.features[:, -TOKENS:], batch.input_ids, None, batch.labels, 4, 4)
        seen: list[torch.Tensor] = []
        optimiser = torch.optim.SGD(model.trainable_tensors().values(), lr=0.0)
        optimiser.register_step_pre_hook(
            lambda one, *_, seen=seen: seen.extend(t.grad.clone() for t in one.param_groups[0]["params"])
        )
        take_step(model, optimiser, cut, OptimSettings())
        assert digest_tensors(model.lm.plain.state_dict()) == digest_tensors(load_lm("playground", chosen).state_dict())
        gradients.append(torch.cat([gradient.view(-1) for gradient in seen]))
    assert float(torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.98
    assert float(gradients[1].norm() / gradients[0].norm()) == pytest.approx(1, abs=0.05)


def test_lora_is_trained_beside_the_frozen_weights() -> None:
    pytest.importorskip("peft")
    lm = load_lm("playground")
    frozen = digest_tensors(lm.state_dict())
    model = _build("model.variant=epalm-lin", "model.adapters=lora", "model.lora_rank=4", lm=lm)
    assert list(model.trainable_tensors()) == [*LORA, *CONNECTOR]
    assert sum(t.numel() for t in model.trainable_tensors().values()) == ONE + 2 * BLOCKS * 2 * 4 * HIDDEN
    losses = _train(model, 4)
    assert losses[-1] != losses[0]
    own = {
        name.replace(".base_layer.", "."): tensor for name, tensor in lm.state_dict().items() if ".lora_" not in name
    }
    assert digest_tensors(own) == frozen
    assert all(float(t.detach().abs().max()) > 0 for name, t in model.trainable_tensors().items() if "lora_B" in name)


@pytest.mark.parametrize("form", ["8bit", "4bit"])
def test_quantised_weights_are_frozen_and_the_rest_is_trained(form: str) -> None:
    pytest.importorskip("bitsandbytes")
    lm = load_lm("playground", "float32", form)
    frozen = digest_tensors(lm.state_dict())
    model = _build("model.variant=epalm-ada", lm=lm)
    assert _train(model, 6)[-1] > 0
    assert digest_tensors(lm.state_dict()) == frozen
    assert list(model.trainable_tensors()) == [*CONNECTOR, *ADAPTERS]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: load_lm("playground", "float32", "4bit"), "epalm[quantized]"),
        (lambda: _build("model.adapters=lora"), "epalm[lora]"),
    ],
)
def test_an_absent_package_is_one_message(build: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError) as caught:
        build()
    assert caught.value.hint is not None and message in caught.value.hint


def test_a_bottleneck_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="adapter_factor 500"):
        _build("model.variant=epalm-ada", "model.adapter_factor=500")


def test_the_settings_of_a_variant_are_saved_with_the_run() -> None:
    config = load_config("playground", ["model.variant=epalm-ada"]).resolved(BLOCKS)
    assert isinstance(config, Config)
    assert (config.model.connector, config.model.prompt, config.model.adapters) == ("separate", "none", "bottleneck")
