"""What the benchmarks work on: playground media with their encoder, models of the playground's or OPT-125M's size."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.extract.encoders.registry import Encoder, EncoderChoice, build_encoder, default_kind
from epalm.extract.pipeline import ExtractSummary, execute
from epalm.extract.plan import plan_media
from epalm.extract.request import ExtractRequest
from epalm.playground.generate import generate_playground
from epalm.recipes.config import Config
from epalm.recipes.settings import OptimSettings
from epalm.samples import Dataset, Modality
from epalm.train.data.batches import Batches, training_items
from epalm.train.data.features import FeatureSource
from epalm.train.data.text import load_text_format
from epalm.train.lm.load import load_lm

# Rates that stay as they are.
STEADY = OptimSettings(warmup_steps=0, peak_lr=1e-5, min_lr=1e-5, fixed_lr=1e-5, lm_lr=0, encoder_lr=0)
OPT_125M = {
    "vocab_size": 50272,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "ffn_dim": 3072,
}


_TOKENS, _WIDTH = 257, 1024
_BLOCK = (64 << 20) // (_TOKENS * _WIDTH * 2)  # rows, as `epalm extract` bounds them by bytes


@dataclass(frozen=True)
class World:
    """Media of one modality with their samples, and an encoder for them."""

    modality: Modality
    dataset: Dataset
    encoder: Encoder


def playground_world(root: Path, modality: Modality, media: int, *, real_size: bool = False) -> World:
    """`media` training media below `root`; the encoder is the playground's, or the paper's with random weights."""
    folder = generate_playground(root / f"{modality}-{media}", modality, counts=(media, 1, 1))
    choice = EncoderChoice(default_kind(modality), None if real_size else "playground", random_weights=real_size)
    return World(modality, load_dataset(str(folder), modality), build_encoder(choice, device="cpu"))


def extract_world(world: World, layers: tuple[int, ...], cache: Cache, **options: Any) -> ExtractSummary:
    """Encode its media into a cache; `options` as those of a request."""
    request = ExtractRequest(world.modality, world.dataset.spec, cache=cache.where, **options)
    return execute(plan_media(request, world.dataset, world.encoder, layers, cache))


def random_rows(root: Path, media: int) -> FeatureSet:
    """Media of a few bytes, with a question each in `samples.jsonl`, and a row of random values for each in `cache`.

    Rows are a ViT-L/14's of one layer: 257 tokens of width 1,024.
    """
    described = {"kind": "random", "tokens": "all", "layout": {"cls": True, "grid": [16, 16]}}
    spec = FeatureSpec("image", described, (0,), _WIDTH, {}, None, {"precision": "float32"}, "float16", 1, _TOKENS)
    features = Cache(root / "cache").feature_set(spec, recorded={})
    values = np.random.default_rng(0).standard_normal((_BLOCK, 1, *spec.row_shape), np.float32).astype(np.float16)
    digests = []
    with (root / "samples.jsonl").open("w", encoding="utf-8") as file:
        for number in range(media):
            content = b"medium %d" % number
            (root / f"{number}.png").write_bytes(content)
            digests.append(hashlib.sha256(content).hexdigest())
            row = {"id": str(number), "modality": "image", "media": f"{number}.png", "task": "qa", "split": "train"}
            file.write(json.dumps({**row, "prompt": "what is it" + " now" * (number % 5), "answers": {"a": 1}}) + "\n")
    for start in range(0, media, _BLOCK):
        part = digests[start : start + _BLOCK]
        features.write_block(part, np.roll(values[: len(part)], start, axis=-1))
    return features


def opt_125m() -> OPTForCausalLM:
    """A language model of OPT-125M's size with random weights."""
    torch.manual_seed(0)
    return OPTForCausalLM(OPTConfig(**OPT_125M, word_embed_proj_dim=768)).eval()


def llama_125m() -> LlamaForCausalLM:
    """One of the Llama architecture with as many weights."""
    torch.manual_seed(0)
    sizes = {key: value for key, value in OPT_125M.items() if key != "ffn_dim"}
    return LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=2048, tie_word_embeddings=True)).eval()


def world_batches(world: World, config: Config, source: FeatureSource) -> Batches:
    """Its training batches in the playground's tokens: which ones depends on neither features nor language model."""
    return Batches(
        training_items(world.dataset.split("train")),
        load_text_format("playground", load_lm("playground")),
        source,
        layers=config.model.tokens,
        batch_size=config.optim.batch_size,
        seed=config.optim.seed,
        loss_on=config.optim.loss_on,
    )
