"""From resolved settings to the model: the bridge that `model.bridge` names, prompt and adapters, around the LM."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.recipes.config import Config
from epalm.train.bridge.model import EpalmModel, Prompt
from epalm.train.bridge.registry import EPALM, bridge_of
from epalm.train.lm.adapters import Adapters, add_lora
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.injection import Injection

ONE_TOKEN = TokenLayout(True, ())
Share = Callable[[float], float]


def build_model(
    config: Config,
    lm: PreTrainedModel,
    width: int,
    encoder: nn.Module | None = None,
    share: Share = float,
    layout: TokenLayout = ONE_TOKEN,
) -> EpalmModel:
    """The model of resolved settings around a plain `lm`, for rows of `layout` and width D_enc.

    `encoder` is one that is trained. `share` gives each of several processes the first one's number: the others'
    language model may be without weights. What is drawn depends on the seed alone. Raises UsageError: no such bridge,
    one that such rows do not suit, adapters that the hidden size is too small for, LoRA without its package, or what
    cannot be done in this language model.
    """
    settings = config.model
    connector_form, prompt_form, adapter_form = settings.forms
    hidden, blocks = lm.config.hidden_size, lm.config.num_hidden_layers
    if settings.start is None or settings.end is None:
        raise ValueError("the settings are not resolved")
    bridge = bridge_of(config)
    own: dict[str, Any] = {"shared": connector_form == "shared"} if settings.bridge == EPALM else bridge.own(config)
    if adapter_form == "bottleneck" and settings.adapter_factor > hidden:
        raise UsageError(
            f"model.adapter_factor {settings.adapter_factor} leaves nothing of a hidden size of {hidden}",
            hint="--set model.adapter_factor=8",
        )
    prompt = adapters = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optim.seed)
        connector = bridge.build(settings.tokens, layout, width, hidden, settings.end - settings.start, **own)
        injection = Injection(
            groups=connector.groups,
            front=connector.front,
            start=settings.start,
            end=settings.end,
            exit=settings.exit,
            attention=settings.attention,
            front_attention=settings.front_attention or "causal",
            blind=settings.blind,
        )
        addition = None if injection.groups else connector.added
        if settings.connector_norm == "rms" and injection.groups:
            norm = nn.RMSNorm(hidden)
            nn.init.constant_(norm.weight, share(embedding_rms(lm)))
            connector = nn.Sequential(OrderedDict(bridge=connector, norm=norm))
        if prompt_form != "none":
            deep, words = blocks if settings.deep_prompt else 1, lm.get_input_embeddings().weight.shape[1]
            prompt = Prompt(settings.prompt_length, words, blocks=deep, mlp=prompt_form == "mlp")
        if adapter_form == "bottleneck":
            adapters = Adapters(blocks, hidden, settings.adapter_factor)
        elif adapter_form == "lora":
            add_lora(lm, rank=settings.lora_rank, alpha=settings.lora_alpha)
    injected = InjectedLM(lm, injection, settings.prompt_length if prompt else 0, adapters, addition)
    return EpalmModel(
        injected,
        connector,
        prompt,
        adapters,
        train_lm=config.lm.train,
        encoder=encoder,
        layers=settings.tokens,
        dropout=settings.dropout,
    )


@torch.no_grad()
def embedding_rms(lm: PreTrainedModel) -> float:
    """The root mean square of words as they enter the first block; 1 where the model has no weights."""
    words = lm.get_input_embeddings()
    if words.weight.is_meta:
        return 1.0
    every = torch.arange(0, len(words.weight), 97, device=words.weight.device)  # some of all parts of the vocabulary
    some = words(every).float()
    return float(some.square().mean().sqrt()) * float(getattr(lm.config, "embedding_multiplier", 1))  # Granite's
