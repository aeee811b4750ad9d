"""Videos: TimeSformer of transformers, with divided space-time or space-only attention.

Space-only is the paper's: only the spatial self-attention, on one frame, without temporal branch and time
embedding. It reads pictures as well as the middle frame of clips, so that what is trained on pictures can be
tested on videos.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "facebook/timesformer-base-finetuned-k400"  # method: encoders of eP-ALM
_DECIDING = (
    "attention_type", "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps",
    "num_attention_heads", "num_hidden_layers", "patch_size", "qkv_bias",
)  # fmt: skip
_KINETICS: dict[str, Any] = {"image_mean": (0.45,) * 3, "image_std": (0.225,) * 3, "resample": 2}
_SPACE_ONLY = "timesformer-space"


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A TimeSformer with `source`'s weights: a Hub name or a folder that transformers saved.

    Frames of a clip [default: as many as it was trained with; 1 when space-only]. Raises UsageError.
    """
    import torch
    from transformers import TimesformerModel, VideoMAEVideoProcessor

    from epalm.extract.encoders.pretrained import load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder
    from epalm.extract.inputs.preprocess import ImageInput, VideoInput
    from epalm.extract.inputs.processors import preprocessing_settings, transformers_pixels
    from epalm.weights import seeded

    space_only = choice.kind == _SPACE_ONLY

    def adapt(config: Any) -> None:
        if space_only:
            config.attention_type, config.num_frames = "space_only", 1
        elif config.attention_type == "space_only":
            raise UsageError("these weights know no time", hint=f"use --encoder {_SPACE_ONLY}")

    model, settings = load_model(
        source,
        "video encoder",
        TimesformerModel,
        default=_DEFAULT_WEIGHTS,
        adapt=adapt,
        read=lambda where: VideoMAEVideoProcessor.get_video_processor_dict(where)[0],
    )
    if source.random:
        with seeded(source):
            for parameter in model.parameters():
                if not parameter.any() and parameter.ndim == 3:  # embeddings that start at zero
                    torch.nn.init.trunc_normal_(parameter, std=0.02)
    config, size = model.config, model.config.image_size
    sizes = {"size": {"shortest_edge": size}, "crop_size": size}
    with preprocessing_settings():
        processor = VideoMAEVideoProcessor(**{**sizes, **_KINETICS, **settings})
    pixels = replace(transformers_pixels(processor, choice.resize or "stretch"), size=(size, size))
    deciding = {key: getattr(config, key) for key in _DECIDING}
    architecture = {"family": "transformers Timesformer", "frames": config.num_frames, **deciding}
    # The blocks share the configuration; the time embedding is interpolated to the frames there are.
    config.num_frames = choice.frames or config.num_frames
    reads_pictures = space_only and choice.modality is not Modality.VIDEO
    side = size // config.patch_size  # patches; the times of each stand side by side
    backbone = Backbone(
        model=model,
        blocks=model.encoder.layer,
        norm=model.layernorm,
        width=config.hidden_size,
        special=1,
        cls=True,
        grid=(side, side) if space_only else (config.num_frames, side, side),
        arrange=None if space_only else lambda tokens: tokens.unflatten(1, (side**2, -1)).transpose(1, 2).flatten(1, 2),
        run=lambda inputs: model(inputs if inputs.ndim == 5 else inputs.unsqueeze(1)),  # a picture is one frame
    )
    reads = ImageInput(pixels) if reads_pictures else VideoInput(pixels, config.num_frames)
    return TransformerEncoder(choice, backbone, reads, compute, architecture)


ENCODERS = {
    "timesformer": EncoderKind(
        (Modality.VIDEO,), build, default=True, has_frames=True, playground="video", family="timesformer"
    ),
    _SPACE_ONLY: EncoderKind((Modality.IMAGE, Modality.VIDEO), build, playground="video", family="timesformer"),
}
