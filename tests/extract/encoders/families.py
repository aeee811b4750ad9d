"""Small random encoders of many families, in the folders that timm and transformers save."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from transformers import MODEL_MAPPING, CLIPImageProcessor

from epalm.extract.encoders.registry import Encoder

SIDE, WIDTH, DEPTH, PATCH = 32, 48, 3, 8
PATCHES = (SIDE // PATCH) ** 2
_TIMM = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 4}
_SHAPE = {
    "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family of picture encoders, and what the suite counts on.

    `name` is an architecture of timm or a configuration of transformers; `special` tokens stand before the patches, a
    `[CLS]` token first where there is one (`cls`).
    """

    name: str
    special: int
    cls: bool
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The encoder that reads it."""
        return "hf-vision" if self.name.endswith("Config") else "vit"

    def save(self, folder: Path, shape: dict[str, Any] = _TIMM) -> Path:
        """A small model of it with random weights."""
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "vit":
            options = shape | self.options
            model = timm.create_model(self.name, num_classes=0, **options)
            pixels = {"input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
            config = {
                "architecture": self.name, "num_classes": 0, "model_args": options, "pretrained_cfg": pixels,
            }  # fmt: skip
            (folder / "config.json").write_text(json.dumps(config))
        else:
            config_class = getattr(transformers, self.name)
            model = MODEL_MAPPING[config_class](config_class(**_SHAPE | self.options))
            CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
        vary(model)
        if self.kind == "vit":
            from safetensors.torch import save_file

            save_file(model.state_dict(), folder / "model.safetensors")
        else:
            model.save_pretrained(folder)
        return folder


def token_of(encoder: Encoder, batch: torch.Tensor) -> torch.Tensor:
    """The one token of every layer (B, depth, D) that an encoder gives."""
    tokens = encoder.encode(batch, range(encoder.depth), torch.float32)
    assert tokens.shape == (len(batch), encoder.depth, 1, encoder.width)
    return tokens.squeeze(2)


def vary(model: torch.nn.Module) -> None:
    """Move every tensor off its initial value: a norm that is passed twice, or not at all, shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


FAMILIES = {
    "timm ViT": Family("vit_base_patch16_224", 1, cls=True),
    "timm ViT, mean-pooled": Family("vit_base_patch16_224", 1, cls=True, options={"global_pool": "avg"}),
    "timm DeiT, distilled": Family("deit_tiny_distilled_patch16_224", 2, cls=True),
    "timm CLIP": Family("vit_base_patch16_clip_quickgelu_224", 1, cls=True),
    "timm DINOv2 with registers": Family("vit_small_patch14_reg4_dinov2", 5, cls=True),
    "timm DINOv3": Family("vit_small_patch16_dinov3", 5, cls=True),
    "timm EVA-02": Family("eva02_base_patch14_224", 1, cls=True),
    "timm PE core": Family("vit_pe_core_tiny_patch16_384", 1, cls=True),
    "timm PE spatial": Family("vit_pe_spatial_tiny_patch16_512", 1, cls=True),
    "timm SigLIP": Family("vit_base_patch16_siglip_224", 0, cls=False),
    "timm AIMv2": Family("aimv2_large_patch14_224", 0, cls=False),
    "timm BEiT": Family("beit_base_patch16_224", 1, cls=True),
    "timm NaFlexViT": Family("naflexvit_base_patch16_map", 1, cls=False),
    "CLIP": Family("CLIPVisionConfig", 1, cls=True),
    "SigLIP": Family("SiglipVisionConfig", 0, cls=False),
    "DINOv2": Family("Dinov2Config", 1, cls=True),
    "DINOv2 with registers": Family("Dinov2WithRegistersConfig", 5, cls=True),
    "DINOv3": Family("DINOv3ViTConfig", 5, cls=True, options={"num_register_tokens": 4}),
    "ViT": Family("ViTConfig", 1, cls=True),
    "DeiT": Family("DeiTConfig", 2, cls=True),
    "BEiT": Family("BeitConfig", 1, cls=True),
    "AIMv2": Family("Aimv2VisionConfig", 0, cls=False),
    "I-JEPA": Family("IJepaConfig", 0, cls=False),
    "ViT-MAE": Family("ViTMAEConfig", 1, cls=True),
}
