"""Tiny random language models with tokenizers of their own, in folders, as published ones lie there."""

from pathlib import Path

import torch

from tests.tiny_tokenizers import save_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 128}
LIKE_LLAMA = SIZES | {"intermediate_size": 32, "num_key_value_heads": 1}
FAMILIES = {  # tokenizer, and the configuration's sizes
    "opt": ("opt", SIZES | {"word_embed_proj_dim": 16, "ffn_dim": 32}),
    "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 128}),
    "llama": ("llama3", LIKE_LLAMA),
    "qwen2": ("qwen2", LIKE_LLAMA),
    "gemma2": ("gemma", LIKE_LLAMA | {"head_dim": 8, "sliding_window": 64}),
    "olmo2": ("gpt2", LIKE_LLAMA),
}


def save_lm(family: str, folder: Path) -> Path:
    """One of `FAMILIES`: what is drawn is always the same."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from epalm.playground import weights_folder

    kind, sizes = FAMILIES[family]
    if kind == "opt":
        words, made = 560, weights_folder("lm")
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((made / name).read_bytes())
    else:
        words = save_tokenizer(kind, folder)
    # Of the others the tokenizer knows control tokens.
    control = {} if family == "opt" else dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = AutoConfig.for_model(family, vocab_size=words, initializer_range=0.1, **sizes, **control)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
