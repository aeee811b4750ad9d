"""Images: any ViT of timm with a `[CLS]` token; and clips, by the mean of its tokens over the frames."""

from dataclasses import replace
from typing import TYPE_CHECKING

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "vit_base_patch16_224.augreg_in21k_ft_in1k"  # method: encoders of eP-ALM
_OVER_FRAMES, _FRAMES = "vit-frames", 8  # of a clip


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A ViT with `source`'s weights: a timm model name, "org/name" on the Hub, or a folder that timm saved.

    Raises:
        UsageError: it cannot be loaded, is no ViT, or has no `[CLS]` token.
    """
    import timm
    import torch
    from timm.models.vision_transformer import VisionTransformer

    from epalm.extract.encoders.transformer import TransformerEncoder
    from epalm.extract.inputs.preprocess import ImageInput, VideoInput
    from epalm.extract.inputs.processors import timm_pixels
    from epalm.weights import load, seeded

    name = source.name or _DEFAULT_WEIGHTS
    if source.folder:
        name = f"local-dir:{source.folder}"
    elif "/" in name and ":" not in name:
        name = f"hf-hub:{name}"

    def create() -> object:
        with seeded(source):
            return timm.create_model(name, pretrained=not source.random, num_classes=0)

    model = load(source if source.folder else replace(source, name=name), "image encoder", create)
    if not isinstance(model, VisionTransformer):
        raise UsageError(f"{source.name!r} is a {type(model).__name__}, no ViT", hint="name a vit_… model")
    if model.cls_token is None:
        raise UsageError("this ViT has no [CLS] token", hint="choose one with a class token")
    pixels = timm_pixels(timm.data.resolve_model_data_config(model), choice.resize or "stretch")
    of_clips, block = choice.kind == _OVER_FRAMES, model.blocks[0]
    return TransformerEncoder(
        choice.kind,
        model,
        model.blocks,
        # Some ViTs move their final norm behind pooling and leave an identity in its place.
        model.norm if isinstance(model.norm, torch.nn.LayerNorm) else model.fc_norm,
        VideoInput(pixels, choice.frames or _FRAMES) if of_clips else ImageInput(pixels),
        compute,
        {
            "family": "timm VisionTransformer",
            "depth": len(model.blocks),
            "width": model.embed_dim,
            "heads": block.attn.num_heads,
            "patch": list(model.patch_embed.patch_size),
            "activation": type(block.mlp.act).__name__,
            "norm_eps": block.norm1.eps,
        },
        run=model.forward_features,
        mean_of_frames=of_clips,
    )


ENCODERS = {
    "vit": EncoderKind((Modality.IMAGE,), build, default=True, playground="image"),
    _OVER_FRAMES: EncoderKind((Modality.VIDEO,), build, has_frames=True, playground="image"),
}
