"""Images: any vision backbone of timm; and clips, by the mean of its tokens over the frames.

A stack of equal blocks gives a token of each: ViT, DeiT, CLIP, DINOv2, DINOv3, EVA-02, PE, SigLIP, AIMv2 and their
like. Any other network (of stages, of convolutions) counts as one block, whose tokens are the places of its last map.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

    from epalm.extract.encoders.transformer import Backbone
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "vit_base_patch16_224.augreg_in21k_ft_in1k"  # method: encoders of eP-ALM
_ROPE = ("temperature", "grid_indexing", "grid_offset", "in_pixels", "normalize_coords", "rotate_half")
_OVER_FRAMES, _FRAMES = "vit-frames", 8  # of a clip


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A backbone with `source`'s weights: a timm model name, "org/name" on the Hub, or a folder that timm saved.

    Raises UsageError: it cannot be loaded, or has no token of the kind that is asked for.
    """
    import timm
    import torch
    from timm.models.vision_transformer import VisionTransformer

    from epalm.extract.encoders.transformer import TransformerEncoder
    from epalm.extract.inputs.preprocess import ImageInput, VideoInput
    from epalm.extract.inputs.processors import timm_pixels
    from epalm.weights import load, require_none_missing, seeded

    name = source.name or _DEFAULT_WEIGHTS
    if source.folder:
        name = f"local-dir:{source.folder}"
    elif "/" in name and ":" not in name:
        name = f"hf-hub:{name}"

    def create() -> Any:
        try:
            with seeded(source), _noted_missing() as missing:
                model = timm.create_model(name, pretrained=not source.random, num_classes=0)
        except KeyError as error:
            if error.args != ("architecture",):
                raise
            fault = f"{source.name!r} was not saved by timm: its config.json names no architecture"
            raise UsageError(fault, hint="for models of transformers: --encoder hf-vision") from error
        # ConvNeXt V2 is published without its head's norm before it is fine-tuned; a fresh one is not random.
        require_none_missing(name for name in missing if not name.startswith("head."))
        return model

    model = load(source if source.folder else replace(source, name=name), "image encoder", create)
    settings = timm.data.resolve_model_data_config(model)
    channels, height, width = settings["input_size"]
    if channels != 3:
        raise UsageError(f"the encoder reads {channels} channels, not 3", hint="choose one of RGB pictures")
    # Those that were read before there was a choice are stretched, as in the paper, and their sets keep their names.
    stretched = isinstance(model, VisionTransformer) and _has_cls(model)
    pixels = timm_pixels(settings, choice.resize or ("stretch" if stretched else "own"))
    frames = (choice.frames or _FRAMES) if choice.kind == _OVER_FRAMES else None
    example = torch.zeros(1, channels, height, width)
    backbone = _stack(model, example) or _last_map(model, example)
    return TransformerEncoder(
        choice,
        backbone,
        VideoInput(pixels, frames) if frames else ImageInput(pixels),
        compute,
        _architecture(model, backbone),
        of_frames=frames,
    )


@contextmanager
def _noted_missing() -> Iterator[list[str]]:
    """The names of tensors that a checkpoint lacks, of models that are made inside: timm draws them without a word."""
    from torch import nn

    missing, own = list[str](), nn.Module.load_state_dict

    def noting(model: Any, *args: Any, **options: Any) -> Any:
        result = own(model, *args, **options)
        missing.extend(result.missing_keys)
        return result

    nn.Module.load_state_dict = noting  # type: ignore[assignment, method-assign]
    try:
        yield missing
    finally:
        nn.Module.load_state_dict = own  # type: ignore[method-assign]


def _stack(model: Any, example: "torch.Tensor") -> "Backbone | None":
    """A model of equal blocks that all put out the tokens that it ends in; None for another."""
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from epalm.extract.encoders.transformer import Backbone, try_out

    blocks, special = getattr(model, "blocks", None), getattr(model, "num_prefix_tokens", 0)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return None
    if isinstance(model, VisionTransformer):
        patches = model.patch_embed.num_patches
    else:
        shapes, end = try_out(model, list(blocks), model.forward_features, example)
        ends_in = tuple(getattr(end, "shape", ()))
        if len(ends_in) != 3 or ends_in[-1] != model.num_features or set(shapes) != {ends_in}:
            return None
        patches = ends_in[1] - special
    # Some models move their final norm behind pooling and leave an identity in its place.
    norms = [norm for name in ("norm", "fc_norm") if not isinstance(norm := getattr(model, name, None), nn.Identity)]
    return Backbone(
        model=model,
        blocks=list(blocks),
        norm=next((norm for norm in norms if norm), nn.Identity()),
        width=model.num_features,
        special=special,
        cls=special > 0 and _has_cls(model),
        grid=_grid(model, patches),
        run=model.forward_features,
        # Its own norms are where it has them, before or behind the pooling.
        pool=(lambda hidden, _: model.forward_head(model.norm(hidden), pre_logits=True)) if model.global_pool else None,
    )


def _last_map(model: Any, example: "torch.Tensor") -> "Backbone":
    """Any other network as one block. Raises UsageError where it ends in no map or sequence of features."""
    from torch import nn

    from epalm.extract.encoders.transformer import Backbone, LastMap, try_out

    width, head = model.num_features, getattr(model, "head", None)
    _, end = try_out(model, [], model.forward_features, example)
    shape = tuple(getattr(end, "shape", ()))
    if len(shape) not in (3, 4) or width not in shape[1:]:
        fault = f"a {type(model).__name__} ends in no map of features"
        raise UsageError(fault, hint="choose another; see docs/encoders.md")
    channels_last = len(shape) == 3 or getattr(model, "output_fmt", "NCHW") == "NHWC" or shape[1] != width
    block = LastMap(model.forward_features, -1 if channels_last else 1)
    special = getattr(model, "num_prefix_tokens", 0) if len(shape) == 3 else 0
    norm = getattr(head, "norm", None)  # of the pooled map alone, in the library

    def last_norm(hidden: "torch.Tensor") -> "torch.Tensor":
        if not isinstance(norm, nn.LayerNorm) or norm.normalized_shape != (width,):
            return hidden
        return nn.functional.layer_norm(hidden, (width,), norm.weight, norm.bias, norm.eps)

    return Backbone(
        model=model,
        blocks=[block],
        norm=last_norm,
        width=width,
        special=special,
        cls=special > 0 and _has_cls(model),
        grid=_grid(model, shape[1] - special) if len(shape) == 3 else shape[1:3] if channels_last else shape[2:],
        run=block,
    )


def _grid(model: Any, patches: int) -> tuple[int, ...]:
    """The rows and columns of so many patches, as the model says or as a square; else a sequence."""
    known = tuple(getattr(getattr(model, "patch_embed", None), "grid_size", None) or ())
    side = math.isqrt(patches)
    return known if math.prod(known or (0,)) == patches else (side, side) if side**2 == patches else (patches,)


def _has_cls(model: Any) -> bool:
    return any(getattr(part, "cls_token", None) is not None for part in (model, getattr(model, "embeds", None)))


def _architecture(model: Any, backbone: "Backbone") -> dict[str, Any]:
    """What decides its numbers beside the weights."""
    from timm.models.vision_transformer import VisionTransformer

    block: Any = backbone.blocks[0]
    mlp: Any = getattr(block, "mlp", None)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    described = {
        "depth": len(backbone.blocks),
        "width": backbone.width,
        "heads": getattr(getattr(block, "attn", None), "num_heads", None),
        "patch": list(patch) if isinstance(patch, tuple) else patch,
        "activation": type(mlp.act).__name__ if hasattr(mlp, "act") else None,
        "norm_eps": getattr(getattr(block, "norm1", None), "eps", None),
    }
    if isinstance(model, VisionTransformer):
        return {"family": "timm VisionTransformer", **described}
    rope = getattr(model, "rope", None)
    rotary = {name: getattr(rope, name) for name in _ROPE if isinstance(getattr(rope, name, None), bool | float | str)}
    named = {"family": f"timm {type(model).__name__}", "architecture": model.pretrained_cfg["architecture"]}
    return {**named, **described, **({"rope": rotary} if rotary else {})}


ENCODERS = {
    "vit": EncoderKind((Modality.IMAGE,), build, default=True, playground="image"),
    _OVER_FRAMES: EncoderKind((Modality.VIDEO,), build, has_frames=True, playground="image"),
}
