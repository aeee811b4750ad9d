"""Pretrain the playground's audio encoder, a small AST, on the attributes of drawn sounds."""

import copy
import random
from pathlib import Path

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from epalm.extract.encoders.transformer import Backbone, BlockTokens
from epalm.extract.inputs.filterbank import filter_bank, fit_frames
from epalm.playground.generate import RATE, draw_audio
from epalm.playground.world import Scene
from epalm.samples import Modality
from pretraining.encoders import pretrain_encoder

WIDTH, MEL_BINS, FRAMES = 96, 64, 128
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet, as the published AST has them


def _draw(scene: Scene, rng: random.Random) -> np.ndarray:
    return fit_frames(filter_bank(draw_audio(scene, rng), rate=RATE, mel_bins=MEL_BINS), FRAMES)


def pretrain(out: Path) -> None:
    """Train, then save as a transformers folder in float16."""
    torch.manual_seed(0)
    model = ASTModel(
        ASTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=4 * WIDTH,
            patch_size=16,
            frequency_stride=16,
            time_stride=16,
            max_length=FRAMES,
            num_mel_bins=MEL_BINS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    for name, parameter in model.embeddings.named_parameters(recurse=False):
        if "position" in name:
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    backbone = Backbone(model=model, blocks=model.layers, norm=model.layernorm, width=WIDTH, special=2, cls=True)
    tokens = BlockTokens(backbone)

    def save() -> None:
        copy.deepcopy(model).half().save_pretrained(out)
        ASTFeatureExtractor(
            sampling_rate=RATE, num_mel_bins=MEL_BINS, max_length=FRAMES, mean=MEAN, std=STD
        ).save_pretrained(out)

    pretrain_encoder(
        Modality.AUDIO,
        model,
        tokens.of,
        WIDTH,
        _draw,
        lambda bank: (bank - MEAN) / (2 * STD),
        save=save,
        examples=6_000,
        steps=1800,
    )
