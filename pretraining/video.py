"""Pretrain the playground's video encoder, a small TimeSformer with divided attention, on drawn clips."""

import copy
import random
from pathlib import Path

import numpy as np
import torch
from transformers import TimesformerConfig, TimesformerModel, VideoMAEImageProcessor

from epalm.extract.encoders.transformer import Backbone, BlockTokens
from epalm.playground.generate import CLIP_SIDE as SIDE
from epalm.playground.generate import FRAMES, draw_video
from epalm.playground.world import Scene
from epalm.samples import Modality
from pretraining.encoders import pretrain_encoder

WIDTH, READ_FRAMES = 96, 8
MEAN = STD = 0.5


def _draw(scene: Scene, rng: random.Random) -> np.ndarray:
    """The frames that extraction will sample: the middle one of each of equal intervals."""
    interval = FRAMES / READ_FRAMES
    return draw_video(scene, rng)[[int((n + 0.5) * interval) for n in range(READ_FRAMES)]]


def pretrain(out: Path) -> None:
    """Train, then save as a transformers folder in float16."""
    torch.manual_seed(0)
    model = TimesformerModel(
        TimesformerConfig(
            image_size=SIDE,
            patch_size=12,
            num_frames=READ_FRAMES,
            hidden_size=WIDTH,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=4 * WIDTH,
            drop_path_rate=0,
        )
    )
    for parameter in (model.embeddings.time_embeddings, model.embeddings.position_embeddings):
        torch.nn.init.trunc_normal_(parameter, std=0.02)  # zeros would tell no frame from another
    backbone = Backbone(model=model, blocks=model.encoder.layer, norm=model.layernorm, width=WIDTH, special=1, cls=True)
    tokens = BlockTokens(backbone)

    def save() -> None:
        copy.deepcopy(model).half().save_pretrained(out)
        VideoMAEImageProcessor(
            size={"height": SIDE, "width": SIDE},
            do_center_crop=False,
            image_mean=[MEAN] * 3,
            image_std=[STD] * 3,
        ).save_pretrained(out)

    pretrain_encoder(
        Modality.VIDEO,
        model,
        tokens.of,
        WIDTH,
        _draw,
        lambda pixels: (pixels.permute(0, 1, 4, 2, 3).float() / 255 - MEAN) / STD,
        save=save,
        examples=6_000,
        steps=1600,
        batch_size=32,
    )
