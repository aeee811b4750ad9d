"""From resolved settings to the model: the bridge that `model.connector` names, prompt and adapters, around the LM.

A bridge is a module from rows (B, G, T, D_enc) to groups (B, G, F, D), made by `make(groups, width, hidden_size)`. Each
lies in a file of its own here and stands in that file's `BRIDGES` by its name; nothing else lists it.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import torch
from torch import nn
from transformers import PreTrainedModel

from epalm.errors import UsageError
from epalm.recipes.config import Config
from epalm.train import bridge
from epalm.train.bridge.model import EpalmModel, Prompt
from epalm.train.lm.adapters import Adapters, add_lora
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.injection import Injection

Share = Callable[[float], float]


@cache
def bridges() -> dict[str, Callable[[int, int, int], nn.Module]]:
    """Every bridge by its name."""
    modules = [import_module(f"{bridge.__name__}.{one.name}") for one in iter_modules(bridge.__path__)]
    return {name: make for module in modules for name, make in getattr(module, "BRIDGES", {}).items()}


def require_bridge(name: str) -> None:
    """Raise UsageError where there is none of that name."""
    if name not in bridges():
        raise UsageError(f"model.connector {name!r} is no bridge", hint=f"use {' or '.join(sorted(bridges()))}")


def build_model(
    config: Config, lm: PreTrainedModel, width: int, encoder: nn.Module | None = None, share: Share = float
) -> EpalmModel:
    """The model of resolved settings around a plain `lm`; `width` is D_enc, `encoder` one that is trained.

    `share` gives each of several processes the first one's number: the others' language model may be without weights.
    What is drawn depends on the seed alone. Raises UsageError: no such bridge, adapters that the hidden size is too
    small for, LoRA without its package, or what cannot be done in this language model.
    """
    settings = config.model
    bridge_name, prompt_form, adapter_form = settings.forms
    hidden, blocks = lm.config.hidden_size, lm.config.num_hidden_layers
    if settings.start is None or settings.end is None:
        raise ValueError("the settings are not resolved")
    require_bridge(bridge_name)
    if adapter_form == "bottleneck" and settings.adapter_factor > hidden:
        raise UsageError(
            f"model.adapter_factor {settings.adapter_factor} leaves nothing of a hidden size of {hidden}",
            hint="--set model.adapter_factor=8",
        )
    prompt = adapters = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optim.seed)
        connector = bridges()[bridge_name](settings.tokens, width, hidden)
        if settings.connector_norm == "rms":
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
    injection = Injection(settings.tokens, settings.start, settings.end, settings.attention, settings.blind)
    injected = InjectedLM(lm, injection, settings.prompt_length if prompt else 0, adapters)
    return EpalmModel(injected, connector, prompt, adapters, train_lm=config.lm.train, encoder=encoder)


@torch.no_grad()
def embedding_rms(lm: PreTrainedModel) -> float:
    """The root mean square of words as they enter the first block; 1 where the model has no weights."""
    words = lm.get_input_embeddings()
    if words.weight.is_meta:
        return 1.0
    every = torch.arange(0, len(words.weight), 97, device=words.weight.device)  # some of all parts of the vocabulary
    some = words(every).float()
    return float(some.square().mean().sqrt()) * float(getattr(lm.config, "embedding_multiplier", 1))  # Granite's
