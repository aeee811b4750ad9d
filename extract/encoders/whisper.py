"""Sounds: the encoder of Whisper of transformers, on thirty seconds. It has no `[CLS]` token: the mean is taken.

It attends to the silence that a shorter recording is padded with, as it was trained to; the mean leaves that out.
"""

import json
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "openai/whisper-base"
_DECIDING = (
    "activation_function", "d_model", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layers",
    "max_source_positions", "num_mel_bins", "scale_embedding",
)  # fmt: skip
_OF_EXTRACTOR = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "padding_value")
_STRIDE = 2  # frames a token


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A Whisper's encoder with `source`'s weights: a Hub name, or a folder of transformers. Raises UsageError."""
    from transformers import WhisperFeatureExtractor, WhisperModel

    from epalm.extract.encoders.pretrained import load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder
    from epalm.extract.inputs.log_mel import LogMelInput

    def adapt(config: Any) -> None:
        config.decoder_layers = 0  # they would be thrown away

    model, extractor = load_model(
        source,
        "audio encoder",
        WhisperModel,
        default=_DEFAULT_WEIGHTS,
        adapt=adapt,
        read=WhisperFeatureExtractor.from_pretrained,
    )
    config, encoder = model.config, model.encoder
    frames = config.max_source_positions * _STRIDE
    extractor = extractor or WhisperFeatureExtractor(config.num_mel_bins, chunk_length=frames // 100)  # 100 a second
    if (extractor.nb_max_frames, extractor.feature_size) != (frames, config.num_mel_bins):
        fault = (
            f"the feature extractor gives {extractor.nb_max_frames} frames of {extractor.feature_size} mel bins, "
            f"the model takes {frames} of {config.num_mel_bins}"
        )
        raise UsageError(fault, hint="correct preprocessor_config.json beside the weights")
    kept = json.dumps({key: getattr(extractor, key) for key in _OF_EXTRACTOR})
    backbone = Backbone(
        model=encoder,
        blocks=encoder.layers,
        norm=encoder.layer_norm,
        width=config.d_model,
        grid=(config.max_source_positions,),
        run=lambda inputs: encoder(inputs[..., :-1].transpose(1, 2)),
        real=lambda inputs: inputs[:, ::_STRIDE, -1] > 0,
    )
    architecture = {"family": "transformers Whisper", **{key: getattr(config, key) for key in _DECIDING}}
    reads = LogMelInput("WhisperFeatureExtractor", kept, extractor.n_samples)
    return TransformerEncoder(choice, backbone, reads, compute, architecture)


ENCODERS = {"whisper": EncoderKind((Modality.AUDIO,), build)}
