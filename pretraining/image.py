"""Pretrain the playground's image encoder, a small timm ViT, on the attributes of drawn pictures."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from epalm.extract.encoders.transformer import Backbone, BlockTokens
from epalm.playground.generate import PICTURE_SIDE as SIDE
from epalm.playground.generate import draw_image
from epalm.samples import Modality
from pretraining.encoders import pretrain_encoder

ARCHITECTURE = "vit_tiny_patch16_224"
WIDTH = 96
SHAPE = {"img_size": SIDE, "patch_size": 8, "embed_dim": WIDTH, "depth": 6, "num_heads": 4}
MEAN = STD = 0.5


def pretrain(out: Path) -> None:
    """Train, then save as a folder that timm's `local-dir:` reads, in float16."""
    torch.manual_seed(0)
    model = timm.create_model(ARCHITECTURE, num_classes=0, **SHAPE)
    backbone = Backbone(model=model, blocks=model.blocks, norm=model.norm, width=WIDTH, special=1, cls=True)
    tokens = BlockTokens(backbone)

    def save() -> None:
        out.mkdir(parents=True, exist_ok=True)
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors")
        config = {
            "architecture": ARCHITECTURE,
            "num_classes": 0,
            "model_args": SHAPE,
            "pretrained_cfg": {
                "input_size": [3, SIDE, SIDE],
                "interpolation": "bicubic",
                "mean": [MEAN] * 3,
                "std": [STD] * 3,
                "num_classes": 0,
                "pool_size": None,
                "first_conv": "patch_embed.proj",
                "classifier": "head",
                "license": "apache-2.0",
            },
        }
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    pretrain_encoder(
        Modality.IMAGE,
        model,
        tokens.of,
        WIDTH,
        draw_image,
        lambda pixels: (pixels.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD,
        save=save,
        examples=12_000,
        steps=1600,
    )
