"""From settings to modules: the one place of this stage that reads a configuration object."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, OPTConfig, PreTrainedTokenizerBase

from epalm.config import Config
from epalm.errors import UsageError
from epalm.playground import weights_folder
from epalm.train.bridge.connector import Connector
from epalm.train.bridge.model import EpalmModel
from epalm.train.bridge.prompt import MlpPrompt, PlainPrompt
from epalm.train.data.text import ANSWER, TextFormat
from epalm.train.lm.adapters import Adapters
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.extras import add_lora, quantization
from epalm.train.lm.injection import Injection
from epalm.weights import Source, from_pretrained, load, require_tokenizer

PLAYGROUND = "playground"
_TOKENIZER_HINT = "take the tokenizer that was published with its weights"


def load_lm(name: str, dtype: str = "float32", quantized: str = "none", *, empty: bool = False) -> AugmentedOPT:
    """An OPT by Hub id or folder, or the playground's, frozen; `empty`: its shapes alone, on the meta device.

    Raises:
        UsageError: it cannot be loaded, is no OPT, or a package for `quantized` weights is not installed.
    """
    source = _source(name)
    config = _opt_config(source)
    if empty:
        with torch.device("meta"):
            shapes: AugmentedOPT = AugmentedOPT(config).to(getattr(torch, dtype))
        shapes.eval().requires_grad_(False)
        return shapes
    form = quantization(quantized, getattr(torch, dtype))
    lm = from_pretrained(AugmentedOPT, source, "language model", config, getattr(torch, dtype), form)
    return lm.eval().requires_grad_(False)  # type: ignore[return-value]


def load_text_format(name: str, lm: AugmentedOPT) -> TextFormat:
    """The language model's tokenizer, with `</a>` as one token.

    Raises:
        UsageError: there is none, it is another model's, or the embedding table has no row left for `</a>`.
    """
    return _text_format(_source(name), lm.config)


def require_language_model(name: str) -> None:
    """Raise UsageError where its folder or tokenizer do not serve: known before weights are loaded, or media read."""
    source = _source(name)
    _text_format(source, _opt_config(source))


def _opt_config(source: Source) -> OPTConfig:
    config = load(source, "language model", lambda: OPTConfig.from_pretrained(str(source.folder or source.name)))
    if config.model_type != "opt":
        raise UsageError(
            f"lm.name {source.name!r} is a {config.model_type}, not an OPT", hint="--set lm.name=facebook/opt-125m"
        )
    return config


def _text_format(source: Source, config: OPTConfig) -> TextFormat:
    if source.folder:
        require_tokenizer(source.folder)
    tokenizer: PreTrainedTokenizerBase = load(
        source,
        "tokenizer",
        lambda: AutoTokenizer.from_pretrained(str(source.folder or source.name), trust_remote_code=False),
    )
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UsageError(f"lm.name {source.name!r} has no tokenizer that makes tokens of text", hint=_TOKENIZER_HINT)
    for role in ("bos", "eos", "pad"):
        wanted, own = getattr(config, f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if own is not None and own != wanted:
            raise UsageError(
                f"lm.name {source.name!r} has another model's tokenizer: its {role} token is {own}, the language "
                f"model's {wanted}",
                hint=_TOKENIZER_HINT,
            )
    text = TextFormat(tokenizer, bos=config.bos_token_id, eos=config.eos_token_id, pad=config.pad_token_id)
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise UsageError(
            f"lm.name {source.name!r} has {config.vocab_size:,} word embeddings, and its tokenizer, with {ANSWER}, ids "
            f"up to {highest:,}",
            hint="the published OPT sizes have room; pad this model's embeddings first, or take its own tokenizer",
        )
    return text


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
