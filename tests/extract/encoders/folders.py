"""Tiny models of each kind of encoder, as timm and transformers save them, and the batches that they read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    TimesformerConfig,
    TimesformerModel,
)

from epalm.extract.encoders.registry import EncoderChoice
from tests.extract.encoders.sequences import AUDIO, VIDEO

SIDE, WIDTH, DEPTH = 32, 48, 3
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 4}
TIMESFORMER = {
    "image_size": SIDE, "patch_size": 8, "num_frames": 4, "hidden_size": WIDTH, "num_hidden_layers": DEPTH,
    "num_attention_heads": 4, "intermediate_size": 4 * WIDTH,
}  # fmt: skip
CLIP = {
    "image_size": SIDE, "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4,
    "intermediate_size": 4 * WIDTH,
}  # fmt: skip
AST = {
    "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4,
    "intermediate_size": 4 * WIDTH, "max_length": 64, "num_mel_bins": 32,
    "frequency_stride": 10, "time_stride": 10,
}  # fmt: skip
# Kind → the folder that it reads, and the shape of one input.
KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "vit": ("vit", (3, SIDE, SIDE)),
    "vit-frames": ("vit", (8, 3, SIDE, SIDE)),
    "hf-vision": ("clip", (3, SIDE, SIDE)),
    "hf-vision-frames": ("clip", (8, 3, SIDE, SIDE)),
    "timesformer": ("timesformer", (4, 3, SIDE, SIDE)),
    "timesformer-space": ("timesformer", (3, SIDE, SIDE)),
    "ast": ("ast", (64, 32)),
    "videomae": ("videomae", (6, 3, SIDE, SIDE)),
    "vjepa2": ("vjepa2", (4, 3, SIDE, SIDE)),
    "whisper": ("whisper", (200, 41)),
    "clap": ("clap", (301, 65)),
    "wav2vec2": ("wav2vec2", (4000,)),
}


@dataclass(frozen=True)
class Folders:
    """Where they lie."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        return self.root / name

    def choice(self, kind: str, **options: Any) -> EncoderChoice:
        return EncoderChoice(kind, str(self.root / KINDS[kind][0]), **options)


def save_vit(folder: Path, tensors: dict[str, torch.Tensor], **sizes: int) -> None:
    """A ViT with these tensors, as timm saves it."""
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "model_args": VIT | sizes,
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE], "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.4] * 3,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def save_all(root: Path) -> Folders:
    """All of them."""
    torch.manual_seed(0)
    (root / "vit").mkdir()
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT)
    save_vit(root / "vit", {name: value.half() for name, value in vit.state_dict().items()})
    CLIPVisionModel(CLIPVisionConfig(**CLIP)).save_pretrained(root / "clip")
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(root / "clip")
    TimesformerModel(TimesformerConfig(**TIMESFORMER)).save_pretrained(root / "timesformer")
    settings = {
        "image_mean": [0.1] * 3,
        "image_std": [0.2] * 3,
        "resample": 3,
        "size": {"shortest_edge": SIDE},
    }
    (root / "timesformer/preprocessor_config.json").write_text(json.dumps(settings))
    ASTModel(ASTConfig(**AST)).half().save_pretrained(root / "ast")
    ASTFeatureExtractor(num_mel_bins=32, max_length=64, mean=-1.0, std=2.0).save_pretrained(root / "ast")
    for kind, family in {one.kind: one for one in (*VIDEO.values(), *AUDIO.values())}.items():
        if not (root / kind).exists():
            family.save(root / kind, varied=False)
    return Folders(root)
