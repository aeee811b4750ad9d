"""From settings to modules: the one place of this stage that reads a configuration object."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, OPTConfig, PreTrainedTokenizerBase

from epalm.config import Config
from epalm.errors import UsageError
from epalm.playground import weights_folder
from epalm.train.adapters import Adapters
from epalm.train.augmented_opt import AugmentedOPT
from epalm.train.connector import Connector
from epalm.train.extras import add_lora, quantization
from epalm.train.injection import Injection
from epalm.train.model import EpalmModel
from epalm.train.prompt import MlpPrompt, PlainPrompt
from epalm.train.text import ANSWER, TextFormat
from epalm.weights import Source, from_pretrained, load

PLAYGROUND = "playground"


def load_lm(name: str, dtype: str = "float32", quantized: str = "none", *, empty: bool = False) -> AugmentedOPT:
    """An OPT by Hub id or folder, or the playground's, frozen; `empty`: its shapes alone, on the meta device.

    Raises:
        UsageError: it cannot be loaded, is no OPT, or a package for `quantized` weights is not installed.
    """
    source = _source(name)
    config = load(source, "language model", lambda: OPTConfig.from_pretrained(str(source.folder or source.name)))
    if config.model_type != "opt":
        raise UsageError(
            f"lm.name {name!r} is a {config.model_type}, not an OPT", hint="--set lm.name=facebook/opt-125m"
        )
    if empty:
        with torch.device("meta"):
            shapes: AugmentedOPT = AugmentedOPT(config).to(getattr(torch, dtype))
        shapes.eval().requires_grad_(False)
        return shapes
    form = quantization(quantized, getattr(torch, dtype))
    lm = from_pretrained(AugmentedOPT, source, "language model", config, getattr(torch, dtype), form)
    return lm.eval().requires_grad_(False)  # type: ignore[return-value]


def lm_from_anywhere(name: str) -> str:
    """The same `lm.name` for a process with another working folder."""
    return str(_source(name).folder or name) if name != PLAYGROUND else name


def load_text_format(name: str, lm: AugmentedOPT) -> TextFormat:
    """The language model's tokenizer, with `</a>` as one token.

    Raises:
        UsageError: there is none, or the embedding table has no row left for `</a>`.
    """
    source = _source(name)
    tokenizer: PreTrainedTokenizerBase = load(
        source,
        "tokenizer",
        lambda: AutoTokenizer.from_pretrained(str(source.folder or source.name), trust_remote_code=False),
    )
    if ANSWER not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [ANSWER]})
    rows = lm.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UsageError(
            f"lm.name {name!r} has {rows} word embeddings and its tokenizer, with {ANSWER}, {len(tokenizer)}",
            hint="the published OPT sizes have room; pad this model's embeddings first",
        )
    return TextFormat(tokenizer, bos=lm.config.bos_token_id, eos=lm.config.eos_token_id, pad=lm.config.pad_token_id)


def build_model(config: Config, lm: AugmentedOPT, width: int, encoder: nn.Module | None = None) -> EpalmModel:
    """The model of resolved settings around `lm`; `width` is D_enc, `encoder` one that is trained.

    What is drawn depends on the seed alone.

    Raises:
        UsageError: adapters that the hidden size is too small for, or LoRA without its package.
    """
    settings = config.model
    hidden, embedding = lm.config.hidden_size, lm.config.word_embed_proj_dim
    if settings.start is None or settings.end is None:
        raise ValueError("the settings are not resolved")
    blocks = lm.config.num_hidden_layers
    prompts = blocks if settings.deep_prompt else 1
    if settings.adapter_form == "bottleneck" and settings.adapter_factor > hidden:
        raise UsageError(
            f"model.adapter_factor {settings.adapter_factor} leaves nothing of a hidden size of {hidden}",
            hint="--set model.adapter_factor=8",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optim.seed)
        shared = settings.connector_form == "shared"
        connector = Connector(settings.tokens, width, hidden, shared=shared)
        prompt: MlpPrompt | PlainPrompt | None = None
        if settings.prompt_form == "mlp":
            prompt = MlpPrompt(settings.prompt_length, embedding, prompts)
        elif settings.prompt_form == "plain":
            prompt = PlainPrompt(settings.prompt_length, embedding, prompts)
        adapters = None
        if settings.adapter_form == "bottleneck":
            adapters = Adapters(blocks, hidden, settings.adapter_factor)
        elif settings.adapter_form == "lora":
            add_lora(lm, rank=settings.lora_rank, alpha=settings.lora_alpha)
    injection = Injection(settings.tokens, settings.start, settings.end, settings.attention, settings.blind)
    lm.augment(injection, settings.prompt_length if prompt else 0, adapters)
    return EpalmModel(lm, connector, prompt, adapters, train_lm=config.lm.train, encoder=encoder)


def _source(name: str) -> Source:
    folder = weights_folder("lm") if name == PLAYGROUND else Path(name)
    return Source(str(folder) if name == PLAYGROUND else name, option="lm.name")
