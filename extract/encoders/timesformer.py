"""Videos: TimeSformer of transformers, with divided space-time or space-only attention.

Space-only is the paper's: only the spatial self-attention, on one frame, without temporal branch and time
embedding. It reads pictures as well as the middle frame of clips, so that what is trained on pictures can be
tested on videos.
"""

from typing import TYPE_CHECKING, Any, cast

from epalm.errors import UsageError
from epalm.extract.encoders.registry import EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from transformers import TimesformerModel

    from epalm.extract.encoders.transformer import Compute, TransformerEncoder
    from epalm.extract.inputs.preprocess import Interpolation, Pixels
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "facebook/timesformer-base-finetuned-k400"  # method: encoders of eP-ALM
_DECIDING = (
    "attention_type", "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps",
    "num_attention_heads", "num_hidden_layers", "patch_size", "qkv_bias",
)  # fmt: skip
_KINETICS: dict[str, Any] = {"image_mean": (0.45,) * 3, "image_std": (0.225,) * 3, "resample": 2}
_SPACE_ONLY = "timesformer-space"


def build(choice: EncoderChoice, source: "Source", compute: "Compute") -> "TransformerEncoder":
    """A TimeSformer with `source`'s weights: a Hub name or a folder that transformers saved.

    Frames of a clip [default: as many as it was trained with; 1 when space-only]. Raises UsageError.
    """
    import torch
    from PIL import Image
    from transformers import TimesformerModel, VideoMAEImageProcessor

    from epalm.extract.inputs.preprocess import Pixels
    from epalm.weights import load_encoder, seeded

    def adapt(config: Any) -> None:
        if choice.kind == _SPACE_ONLY:
            config.attention_type, config.num_frames = "space_only", 1

    settings_of = VideoMAEImageProcessor.get_image_processor_dict
    model, settings = load_encoder(
        source, "video encoder", TimesformerModel, settings_of, default=_DEFAULT_WEIGHTS, adapt=adapt
    )
    if source.random:
        with seeded(source):
            for parameter in model.parameters():
                if not parameter.any() and parameter.ndim == 3:  # embeddings that start at zero
                    torch.nn.init.trunc_normal_(parameter, std=0.02)
    settings = _KINETICS | settings
    side = model.config.image_size
    pixels = Pixels(
        (side, side),
        cast("Interpolation", Image.Resampling(int(settings["resample"])).name.lower()),
        tuple(settings["image_mean"]),
        tuple(settings["image_std"]),
    )
    modality = (choice.modality or Modality.IMAGE) if choice.kind == _SPACE_ONLY else Modality.VIDEO
    return timesformer_encoder(
        model, pixels, compute, frames=choice.frames or model.config.num_frames, modality=modality
    )


def timesformer_encoder(
    model: "TimesformerModel", pixels: "Pixels", compute: "Compute", *, frames: int, modality: Modality = Modality.VIDEO
) -> "TransformerEncoder":
    """`modality` says whether it reads videos or (space-only) pictures. Raises UsageError."""
    from epalm.extract.encoders.transformer import TransformerEncoder
    from epalm.extract.inputs.preprocess import ImageInput, VideoInput

    config = model.config
    space_only = config.attention_type == "space_only"
    if space_only and frames != 1:
        raise UsageError("space-only attention reads one frame", hint="leave out --frames")
    trained_frames = 1 if space_only else config.num_frames
    # The blocks share the configuration; the time embedding is interpolated to the frames there are.
    config.num_frames = frames
    return TransformerEncoder(
        _SPACE_ONLY if space_only else "timesformer",
        modality,
        model,
        model.encoder.layer,
        model.layernorm,
        reads=ImageInput(pixels) if modality is Modality.IMAGE else VideoInput(pixels, frames),
        width=config.hidden_size,
        architecture={
            "family": "transformers Timesformer",
            "frames": trained_frames,
            **{key: getattr(config, key) for key in _DECIDING},
        },
        compute=compute,
        run=lambda inputs: model(inputs if inputs.ndim == 5 else inputs.unsqueeze(1)),  # a picture is one frame
    )


ENCODERS = {
    "timesformer": EncoderKind(
        (Modality.VIDEO,), build, default=True, has_frames=True, playground="video", family="timesformer"
    ),
    _SPACE_ONLY: EncoderKind((Modality.IMAGE, Modality.VIDEO), build, playground="video", family="timesformer"),
}
