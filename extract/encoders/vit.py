"""Images: any ViT of timm with a `[CLS]` token; and clips, by the mean of its tokens over the frames."""

from dataclasses import replace
from typing import TYPE_CHECKING

from epalm.errors import UsageError
from epalm.extract.encoders.registry import EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from epalm.extract.encoders.transformer import Compute, TransformerEncoder
    from epalm.extract.inputs.preprocess import Pixels
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "vit_base_patch16_224.augreg_in21k_ft_in1k"  # method: encoders of eP-ALM
_FRAMES = 8  # of a clip


def build(choice: EncoderChoice, source: "Source", compute: "Compute") -> "TransformerEncoder":
    """A ViT with `source`'s weights: a timm model name, "org/name" on the Hub, or a folder that timm saved."""
    import timm.data

    from epalm.extract.inputs.preprocess import Pixels

    model = load_vit(source)
    settings = timm.data.resolve_model_data_config(model)
    _, height, width = settings["input_size"]
    pixels = Pixels((height, width), settings["interpolation"], tuple(settings["mean"]), tuple(settings["std"]))
    frames = (choice.frames or _FRAMES) if choice.kind == "vit-frames" else None
    return vit_encoder(model, pixels, compute, frames=frames)


def load_vit(source: "Source") -> "VisionTransformer":
    """The model. Raises UsageError: it cannot be loaded, or is no ViT."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

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
    return model


def vit_encoder(
    model: "VisionTransformer", pixels: "Pixels", compute: "Compute", *, frames: int | None = None
) -> "TransformerEncoder":
    """Of pictures; of clips of so many `frames` where these are given. Raises UsageError: it has no `[CLS]` token."""
    import torch

    from epalm.extract.encoders.transformer import TransformerEncoder
    from epalm.extract.inputs.preprocess import ImageInput, VideoInput

    if model.cls_token is None:
        raise UsageError("this ViT has no [CLS] token", hint="choose one with a class token")
    block = model.blocks[0]
    return TransformerEncoder(
        "vit-frames" if frames else "vit",
        Modality.VIDEO if frames else Modality.IMAGE,
        model,
        model.blocks,
        # Some ViTs move their final norm behind pooling and leave an identity in its place.
        model.norm if isinstance(model.norm, torch.nn.LayerNorm) else model.fc_norm,
        reads=VideoInput(pixels, frames) if frames else ImageInput(pixels),
        width=model.embed_dim,
        architecture={
            "family": "timm VisionTransformer",
            "depth": len(model.blocks),
            "width": model.embed_dim,
            "heads": block.attn.num_heads,
            "patch": list(model.patch_embed.patch_size),
            "activation": type(block.mlp.act).__name__,
            "norm_eps": block.norm1.eps,
        },
        compute=compute,
        run=model.forward_features,
        mean_of_frames=frames is not None,
    )


ENCODERS = {
    "vit": EncoderKind((Modality.IMAGE,), build, default=True, playground="image"),
    "vit-frames": EncoderKind((Modality.VIDEO,), build, has_frames=True, playground="image"),
}
