"""Tiny random language models of many architectures, in float64 where numbers are compared."""

from typing import Any

import torch
import transformers
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from epalm.recipes.settings import FrontAttention
from epalm.train.bridge.model import EpalmModel, Prompt
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.injection import Injection

WIDTH, VOCABULARY, HIDDEN, EOS = 6, 40, 16, 3
_TOKENS = {"bos_token_id": 2, "eos_token_id": EOS, "pad_token_id": 1}
_OPT = {"ffn_dim": 24, "word_embed_proj_dim": HIDDEN}
_OTHER = {"intermediate_size": 24, "num_key_value_heads": 1}
_EXPERTS = {"head_dim": 8, "num_experts_per_tok": 2}


def _config(name: str, blocks: int, window: int, **words: Any) -> PreTrainedConfig:
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": blocks, "num_attention_heads": 2}
    sizes |= {"vocab_size": VOCABULARY, "max_position_embeddings": 64}
    words = {key: window if value == "window" else value for key, value in words.items()}
    if words.get("layer_types") == "both":
        words["layer_types"] = [("sliding_attention", "full_attention")[block % 2] for block in range(blocks)]
    config: PreTrainedConfig = getattr(transformers, f"{name}Config")(**sizes, **_TOKENS, **words)
    return config


# Of each family: transformers' name of its configuration, and what else is to be set. "window" is drawn.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "OPT": ("OPT", _OPT),
    "OPT, narrower words": ("OPT", {**_OPT, "word_embed_proj_dim": 8}),
    "OPT, post-norm": ("OPT", {**_OPT, "word_embed_proj_dim": 8, "do_layer_norm_before": False}),
    "Llama": ("Llama", _OTHER),
    "Mistral": ("Mistral", {**_OTHER, "sliding_window": "window"}),
    "Qwen2": ("Qwen2", _OTHER),
    "Qwen3": ("Qwen3", {**_OTHER, "head_dim": 8}),
    "Qwen3 MoE": ("Qwen3Moe", {**_OTHER, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 12}),
    "SmolLM3": ("SmolLM3", _OTHER),
    "Gemma": ("Gemma", {**_OTHER, "head_dim": 8}),
    "Gemma 2": ("Gemma2", {**_OTHER, "head_dim": 8, "sliding_window": "window"}),
    "Gemma 3": ("Gemma3Text", {**_OTHER, "head_dim": 8, "sliding_window": "window", "layer_types": "both"}),
    "OLMo 2": ("Olmo2", _OTHER),
    "OLMo 3": ("Olmo3", {**_OTHER, "sliding_window": "window", "layer_types": "both"}),
    "Phi": ("Phi", _OTHER),
    "Phi-3": ("Phi3", {**_OTHER, "sliding_window": "window"}),
    "Granite": ("Granite", {**_OTHER, "logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "StableLM": ("StableLm", _OTHER),
    "StarCoder2": ("Starcoder2", {**_OTHER, "sliding_window": "window"}),
    "GPT-2": ("GPT2", {}),
    "GPT-NeoX": ("GPTNeoX", {"intermediate_size": 24}),
    "GLM-4": ("Glm4", {**_OTHER, "head_dim": 8}),
    "Cohere 2": ("Cohere2", {**_OTHER, "sliding_window": "window", "layer_types": "both"}),
    "EXAONE 4": ("Exaone4", {**_OTHER, "sliding_window": "window", "layer_types": "both"}),
    "gpt-oss": ("GptOss", {**_OTHER, **_EXPERTS, "num_local_experts": 4, "sliding_window": "window"}),
}
_LINEAR = {f"linear_{kind}": 2 for kind in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")}
# Families that are refused, with words of the message.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "BLOOM": ("Bloom", {}, "neither rotary nor learnt"),
    "MPT": ("Mpt", {}, "neither rotary nor learnt"),
    "Falcon, ALiBi": ("Falcon", {"alibi": True}, "neither rotary nor learnt"),
    "Mamba": ("Mamba", {}, "linear_attention"),
    "LFM2": ("Lfm2", {**_OTHER, "layer_types": ["conv", "full_attention"]}, "conv"),
    "Qwen3-Next": ("Qwen3Next", {**_OTHER, **_EXPERTS, **_LINEAR, "num_experts": 4}, "linear_attention"),
    "Gemma 3n": (
        "Gemma3nText",
        {**_OTHER, "num_kv_shared_layers": 0, "layer_types": ["full_attention"] * 2},
        "several streams",
    ),
}


def plain_lm(config: PreTrainedConfig, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """A frozen one with weights large enough that a mistake is not lost in rounding."""
    torch.manual_seed(seed)
    lm: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(dtype).eval().requires_grad_(False)
    for tensor in lm.parameters():
        tensor.mul_(5 if tensor.ndim > 1 else 1)
    if any("experts" in name for name, _ in lm.named_parameters()):
        lm.set_experts_implementation("eager")  # the other one has no float64
    return lm


def family_config(family: str, blocks: int = 2, window: int = 4) -> PreTrainedConfig:
    name, words, *_ = FAMILIES.get(family) or REFUSED[family]
    return _config(name, blocks, window, **words)


class _Wide(nn.Module):
    """(B, G, T, D_enc) → (B, G, F, D)."""

    def __init__(self, front: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, front * HIDDEN)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.linear(rows[:, :, 0]).unflatten(2, (-1, HIDDEN))
        return values


def injected(
    lm: PreTrainedModel,
    injection: Injection,
    *,
    length: int = 0,
    deep: bool = False,
    mlp: bool = False,
) -> EpalmModel:
    torch.manual_seed(1)
    width = lm.get_input_embeddings().weight.shape[1]
    blocks = lm.config.num_hidden_layers if deep else 1
    prompt = Prompt(length, width, blocks=blocks, mlp=mlp) if length else None
    model = EpalmModel(InjectedLM(lm, injection, length), _Wide(injection.front), prompt)
    return model.to(lm.dtype).eval()


@st.composite
def injections(draw: st.DrawFn, blocks: int, start: int = 0, blind: bool = False) -> Injection:
    first = draw(st.integers(start, blocks - 1))
    end = draw(st.integers(first + 1, blocks))
    leaves = draw(st.one_of(st.none(), st.integers(end, blocks)))
    among: FrontAttention = draw(st.sampled_from(("causal", "full")))
    groups, front = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Injection(groups, first, end, blind=blind, front=front, exit=leaves, front_attention=among)


def draw_model(data: st.DataObject, family: str, dtype: torch.dtype = torch.float64, prompt: int = 3) -> EpalmModel:
    """A model of the family: depth, window, schedule, front and prompt (of at most so many) are drawn."""
    blocks = data.draw(st.integers(2, 4), "blocks")
    lm = plain_lm(family_config(family, blocks, data.draw(st.integers(3, 9), "window")), dtype)
    injection = data.draw(injections(blocks), "injection")
    length = data.draw(st.integers(0, prompt), "prompt")
    return injected(lm, injection, length=length, deep=data.draw(st.booleans()), mlp=data.draw(st.booleans()))


def draw_inputs(data: st.DataObject, model: EpalmModel, least: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and ids of some samples."""
    batch, length = data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(least, 8), "length")
    torch.manual_seed(2)
    rows = torch.randn(batch, model.layers, 1, WIDTH, dtype=model.lm.plain.dtype)
    return rows, torch.randint(4, VOCABULARY, (batch, length))
