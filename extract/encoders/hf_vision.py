"""Pictures: any vision transformer of transformers, such as CLIP, SigLIP, DINOv2, DINOv3, BEiT or AIMv2.

Of a model of pictures and texts, its vision tower. The configuration names the class; blocks, last norm and special
tokens are found by structure. Also clips, by the mean of the tokens over their frames.
"""

import math
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

    from epalm.extract.encoders.transformer import Backbone
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "openai/clip-vit-base-patch32"
_OVER_FRAMES, _FRAMES = "hf-vision-frames", 8  # of a clip
_CLS = ("cls_token", "class_embedding")  # parameters of the embeddings that stand in front of the patches
_SPECIAL = (*_CLS, "distillation_token", "register_tokens")
_NEEDED = ("hidden_size", "num_hidden_layers", "patch_size")
_POOLING = ("head", "pooler")


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """The vision tower of `source`'s weights: a Hub name or a folder that transformers saved.

    Raises UsageError: it cannot be loaded, or has no stack of blocks with a norm behind it.
    """
    from transformers import AutoImageProcessor, CLIPImageProcessor, CLIPVisionConfig

    from epalm.extract.encoders.pretrained import deciding, load_model
    from epalm.extract.encoders.transformer import TransformerEncoder
    from epalm.extract.inputs.preprocess import ImageInput, VideoInput
    from epalm.extract.inputs.processors import transformers_pixels

    model, processor = load_model(
        source,
        "image encoder",
        default=_DEFAULT_WEIGHTS,
        default_config=CLIPVisionConfig,
        part="vision_config",
        adapt=_adapt,
        pooling=choice.tokens == "pooled",
        read=lambda where: AutoImageProcessor.from_pretrained(where, trust_remote_code=False),
    )
    frames = (choice.frames or _FRAMES) if choice.kind == _OVER_FRAMES else None
    pixels = transformers_pixels(processor or CLIPImageProcessor(), choice.resize or "own")
    return TransformerEncoder(
        choice,
        _backbone(model, pixels.size),
        VideoInput(pixels, frames) if frames else ImageInput(pixels),
        compute,
        {"family": f"transformers {type(model).__name__}", **deciding(model.config)},
        of_frames=frames,
    )


def _adapt(config: Any) -> None:
    """Raise UsageError for what is not read here; of a masked autoencoder, all patches are seen."""
    if config.model_type == "timm_wrapper":
        raise UsageError("these are weights of timm", hint="use --encoder vit")
    if config.model_type == "siglip2_vision_model":
        fault = "--weights name a NaFlex model of SigLIP 2, whose pictures keep their own proportions: it is not read"
        raise UsageError(fault, hint="name one of SigLIP 2 of one size, such as google/siglip2-base-patch16-224")
    if not all(isinstance(getattr(config, name, None), int | list | tuple) for name in _NEEDED):
        fault = f"{config.model_type!r} is no vision transformer of equal blocks"
        raise UsageError(fault, hint="timm may have it: --encoder vit with a name of timm")
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0


def _backbone(model: Any, size: tuple[int, int]) -> "Backbone":
    """Its parts, by structure; `size` (height, width) is its input's. Raises UsageError: they do not fit together."""
    import torch

    from epalm.extract.encoders.pretrained import find_blocks, find_norm
    from epalm.extract.encoders.transformer import Backbone, try_out

    config = model.config
    if not isinstance(getattr(model, "embeddings", None), torch.nn.Module):
        fault = f"a {type(model).__name__} has no embeddings in front of its blocks"
        raise UsageError(fault, hint="choose another; see docs/encoders.md")
    counts = {
        name: parameter.numel() // config.hidden_size
        for name, parameter in model.embeddings.named_parameters()
        if name in _SPECIAL
    }
    norm = find_norm(model, config.hidden_size)
    head = next((head for name in _POOLING if (head := getattr(model, name, None))), None)
    inside = head is not None and norm in head.modules()  # the norm is the pooling's own

    def pool(hidden: "torch.Tensor", real: "torch.Tensor | None") -> "torch.Tensor":
        return head(hidden if inside else norm(hidden))  # type: ignore[no-any-return, misc]

    def run_in_order(inputs: "torch.Tensor") -> object:
        """Of a masked autoencoder, which shuffles its patches, though it sees all of them."""
        return model(inputs, noise=torch.arange(math.prod(grid), device=inputs.device).expand(len(inputs), -1))

    run = run_in_order if hasattr(config, "mask_ratio") else model
    (height, width), patch = size, config.patch_size
    high, wide = (patch, patch) if isinstance(patch, int) else patch
    grid = height // high, width // wide
    backbone = Backbone(
        model=model,
        blocks=find_blocks(model, config.num_hidden_layers),
        norm=norm,
        width=config.hidden_size,
        special=sum(counts.values()),
        cls=any(name in _CLS for name in counts),
        grid=grid,
        run=run,
        pool=pool if head else None,
    )
    shapes, _ = try_out(model, backbone.blocks, run, torch.zeros(1, config.num_channels, height, width))
    patches = math.prod(grid)
    if set(shapes) != {(1, backbone.special + patches, config.hidden_size)}:
        fault = (
            f"the blocks of a {type(model).__name__} put out {shapes[0]}, where {patches} patches and "
            f"{backbone.special} other tokens of {config.hidden_size} values were expected"
        )
        raise UsageError(fault, hint="choose another; see docs/encoders.md")
    return backbone


ENCODERS = {
    "hf-vision": EncoderKind((Modality.IMAGE,), build),
    _OVER_FRAMES: EncoderKind((Modality.VIDEO,), build, has_frames=True),
}
