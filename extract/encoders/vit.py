"""Image encoder: any ViT of timm with a `[CLS]` token. Knows timm; knows nothing about files or the cache."""

from typing import Any

import timm
import timm.data
import torch
from timm.models.vision_transformer import VisionTransformer

from epalm.errors import UsageError
from epalm.extract.encoders.cls_tokens import ClsTokens
from epalm.extract.encoders.compute import Compute
from epalm.extract.encoders.protocol import TOKEN_RULE
from epalm.extract.inputs.preprocess import ImageInput, Input, Pixels
from epalm.samples import Modality
from epalm.weights import Source, freeze, load, seeded

DEFAULT_WEIGHTS = "vit_base_patch16_224.augreg_in21k_ft_in1k"  # method: encoders of eP-ALM


class ViT:
    """A timm VisionTransformer, `[CLS]` at position 0."""

    kind = "vit"
    modality = Modality.IMAGE

    def __init__(self, model: VisionTransformer, pixels: Pixels, compute: Compute) -> None:
        if model.cls_token is None:
            raise UsageError("this ViT has no [CLS] token", hint="choose one with a class token")
        self.pixels = pixels
        self.input: Input = ImageInput(pixels)
        self.depth, self.width = len(model.blocks), model.embed_dim
        self._weights = freeze(model)
        self._model, self._compute = compute.place(model, model.blocks), compute
        self.device, self.precision = compute.device, compute.precision
        # Some ViTs move their final norm behind pooling and leave an identity in its place.
        norm = model.norm if isinstance(model.norm, torch.nn.LayerNorm) else model.fc_norm
        self._tokens = ClsTokens(model.blocks, norm)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        block = self._model.blocks[0]
        return {
            "kind": self.kind,
            "architecture": {
                "family": "timm VisionTransformer",
                "depth": self.depth,
                "width": self.width,
                "heads": block.attn.num_heads,
                "patch": list(self._model.patch_embed.patch_size),
                "activation": type(block.mlp.act).__name__,
                "norm_eps": block.norm1.eps,
            },
            "weights": self._weights,
            "token": TOKEN_RULE,
        }

    @property
    def module(self) -> torch.nn.Module:
        """See `TrainableEncoder`."""
        module: torch.nn.Module = self._model
        return module

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) → (B, depth, D)."""
        with self._compute.autocast():
            return self._tokens.of(lambda: self._model.forward_features(batch.to(self.device)))


def build_vit(source: Source, compute: Compute) -> ViT:
    """A ViT with `source`'s weights: a timm model name, "org/name" on the Hub, or a folder that timm saved.

    Raises:
        UsageError: see `load`.
    """
    name = source.name or DEFAULT_WEIGHTS
    if source.folder:
        name = f"local-dir:{source.folder}"
    elif "/" in name and ":" not in name:
        name = f"hf-hub:{name}"
    named = Source(name if not source.folder else source.name, source.random, source.seed)

    def build() -> torch.nn.Module:
        with seeded(source):
            return timm.create_model(name, pretrained=not source.random, num_classes=0)  # type: ignore[no-any-return]

    model = load(named, "image encoder", build)
    if not isinstance(model, VisionTransformer):
        raise UsageError(f"{source.name!r} is a {type(model).__name__}, no ViT", hint="name a vit_… model")
    return ViT(model, _pixels(model), compute)


def _pixels(model: VisionTransformer) -> Pixels:
    settings = timm.data.resolve_model_data_config(model)
    _, height, width = settings["input_size"]
    return Pixels((height, width), settings["interpolation"], tuple(settings["mean"]), tuple(settings["std"]))
