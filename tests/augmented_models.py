"""Tiny injected OPTs with random weights, of all forms."""

import torch
from hypothesis import strategies as st
from transformers import OPTConfig, OPTForCausalLM

from epalm.train.bridge.epalm import Connector
from epalm.train.bridge.model import EpalmModel, Prompt
from epalm.train.lm.adapters import Adapters
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.injection import Attention, Injection

WIDTH, VOCABULARY = 6, 60


def small_config(blocks: int = 4, hidden: int = 16, embedding: int | None = None) -> OPTConfig:
    return OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        word_embed_proj_dim=embedding or hidden,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        ffn_dim=2 * hidden,
        max_position_embeddings=64,
        do_layer_norm_before=embedding is None,  # OPT-350M's form has both
    )


def small_model(
    config: OPTConfig,
    injection: Injection,
    *,
    length: int = 0,
    mlp: bool = False,
    deep: bool = False,
    adapted: bool = False,
    seed: int = 0,
) -> EpalmModel:
    torch.manual_seed(seed)
    plain = OPTForCausalLM(config).eval()
    adapters = Adapters(config.num_hidden_layers, config.hidden_size, 4) if adapted else None
    with torch.no_grad():  # the initial weights are so small that most of a mistake would be lost in rounding
        for tensor in plain.parameters():
            tensor.mul_(3)
        for tensor in adapters.parameters() if adapters else ():
            tensor.mul_(300)
    lm = InjectedLM(plain, injection, length, adapters)
    blocks = config.num_hidden_layers if deep else 1
    prompt = Prompt(length, config.word_embed_proj_dim, blocks=blocks, mlp=mlp) if length else None
    connector = Connector(injection.groups, None, WIDTH, config.hidden_size, shared=False)
    return EpalmModel(lm, connector, prompt, adapters).eval()


def all_logits(
    model: EpalmModel, rows: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Of the front positions, too."""
    logits: torch.Tensor = model.lm(**model._with_front(model.perceive(rows), ids, mask))
    return logits


@st.composite
def models(draw: st.DrawFn, attention: Attention = "causal") -> EpalmModel:
    blocks = draw(st.integers(2, 5))
    start = draw(st.integers(0, blocks - 1))
    end = draw(st.integers(start + 1, blocks))
    injection = Injection(draw(st.integers(1, 4)), start, end, attention)
    config = small_config(blocks, embedding=draw(st.sampled_from((None, 8))))
    return small_model(
        config,
        injection,
        length=draw(st.integers(0, 3)),
        mlp=draw(st.booleans()),
        deep=draw(st.booleans()),
        adapted=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def small_inputs(model: EpalmModel, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(batch, model.layers, 1, WIDTH)
    return features, torch.randint(3, VOCABULARY, (batch, length))
