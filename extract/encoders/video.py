"""Clips: VideoMAE and V-JEPA 2 of transformers. They have no `[CLS]` token: the mean over places and times is taken.

Frames are fitted as the model's own video processor fits them. A token stands for `tubelet_size` frames.
"""

from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.extract.inputs.preprocess import VideoInput
    from epalm.weights import Source


def build_videomae(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A VideoMAE with `source`'s weights, pretrained, or with a classifier, whose norm is then the last one.

    Frames of a clip [default: as many as it was trained with]. Raises UsageError.
    """
    from transformers import VideoMAEForVideoClassification, VideoMAEVideoProcessor

    from epalm.extract.encoders.pretrained import deciding, load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder

    def adapt(config: Any) -> None:
        config.num_frames, config.num_labels = choice.frames or config.num_frames, 0  # positions are computed

    model, processor = load_model(
        source,
        "video encoder",
        VideoMAEForVideoClassification,
        default="MCG-NJU/videomae-base",
        adapt=adapt,
        read=VideoMAEVideoProcessor.from_pretrained,
    )
    config, inner, side = model.config, model.videomae, model.config.image_size
    processor = processor or VideoMAEVideoProcessor(size={"shortest_edge": side}, crop_size=_square(side))
    reads, grid = _reads(choice, processor, config, side, config.num_frames)
    backbone = Backbone(
        model=model,
        blocks=inner.encoder.layer,
        norm=model.fc_norm or inner.layernorm,
        width=config.hidden_size,
        grid=grid,
        run=inner,
    )
    architecture = {"family": "transformers VideoMAE", **deciding(config, besides=("decoder_", "norm_pix"))}
    return TransformerEncoder(choice, backbone, reads, compute, architecture)


def build_vjepa2(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """The encoder of a V-JEPA 2 with `source`'s weights, without its predictor.

    Frames of a clip [default: as many as it was trained with]. Raises UsageError.
    """
    from transformers import VJEPA2Model, VJEPA2VideoProcessor

    from epalm.extract.encoders.pretrained import deciding, load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder

    def adapt(config: Any) -> None:
        config.pred_num_hidden_layers = 1  # of what is thrown away

    model, processor = load_model(
        source,
        "video encoder",
        VJEPA2Model,
        default="facebook/vjepa2-vitl-fpc64-256",
        adapt=adapt,
        read=VJEPA2VideoProcessor.from_pretrained,
    )
    config, inner, side = model.config, model.encoder, model.config.crop_size
    processor = processor or VJEPA2VideoProcessor(crop_size=_square(side))
    reads, grid = _reads(choice, processor, config, side, choice.frames or config.frames_per_clip)
    backbone = Backbone(
        model=inner,
        blocks=inner.layer,
        norm=inner.layernorm,
        width=config.hidden_size,
        grid=grid,
    )
    architecture = {"family": "transformers VJEPA2", **deciding(config, besides=("pred_", "num_pooler"))}
    return TransformerEncoder(choice, backbone, reads, compute, architecture)


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _reads(
    choice: EncoderChoice, processor: Any, config: Any, side: int, frames: int
) -> tuple["VideoInput", tuple[int, int, int]]:
    """Clips of so many frames of `side` × `side` pixels, as the processor fits them; and the grid of their tokens."""
    from epalm.extract.inputs.preprocess import VideoInput
    from epalm.extract.inputs.processors import transformers_pixels

    pixels = transformers_pixels(processor, choice.resize or "own")
    if pixels.size != (side, side):
        fault = f"the processor gives {pixels.size[0]}×{pixels.size[1]} pixels, the model takes {side}×{side}"
        raise UsageError(fault, hint="correct its settings beside the weights")
    tubelet, places = config.tubelet_size, side // config.patch_size
    if frames % tubelet:
        hint = f"use --frames {max(1, frames // tubelet) * tubelet}"
        raise UsageError(f"--frames {frames} cannot be cut into tubelets of {tubelet}", hint=hint)
    return VideoInput(pixels, frames), (frames // tubelet, places, places)


ENCODERS = {
    "videomae": EncoderKind((Modality.VIDEO,), build_videomae, has_frames=True),
    "vjepa2": EncoderKind((Modality.VIDEO,), build_vjepa2, has_frames=True),
}
