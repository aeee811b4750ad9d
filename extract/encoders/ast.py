"""Sounds: the Audio Spectrogram Transformer (AST) of transformers.

Its `[CLS]` token, not the distillation token and not their mean.
"""

from typing import TYPE_CHECKING, Any

from epalm.extract.encoders.registry import EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from transformers import ASTModel

    from epalm.extract.encoders.transformer import Compute, TransformerEncoder
    from epalm.extract.inputs.preprocess import AudioInput
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "MIT/ast-finetuned-audioset-10-10-0.4593"  # method: encoders of eP-ALM
_DECIDING = (
    "frequency_stride", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "max_length",
    "num_attention_heads", "num_hidden_layers", "num_mel_bins", "patch_size", "qkv_bias", "time_stride",
)  # fmt: skip
_AUDIOSET: dict[str, Any] = {"sampling_rate": 16_000, "mean": -4.2677393, "std": 4.5689974}


def build(_choice: EncoderChoice, source: "Source", compute: "Compute") -> "TransformerEncoder":
    """An AST with `source`'s weights: a Hub name or a folder that transformers saved. Raises UsageError."""
    from transformers import ASTFeatureExtractor, ASTModel

    from epalm.extract.inputs.preprocess import AudioInput
    from epalm.weights import load_encoder

    settings_of = ASTFeatureExtractor.get_feature_extractor_dict
    model, settings = load_encoder(source, "audio encoder", ASTModel, settings_of, default=_DEFAULT_WEIGHTS)
    settings = _AUDIOSET | settings
    rate, mean, std = int(settings["sampling_rate"]), float(settings["mean"]), float(settings["std"])
    return ast_encoder(model, AudioInput(rate, model.config.num_mel_bins, model.config.max_length, mean, std), compute)


def ast_encoder(model: "ASTModel", reads: "AudioInput", compute: "Compute") -> "TransformerEncoder":
    """An AST that was loaded."""
    from epalm.extract.encoders.transformer import TransformerEncoder

    architecture = {"family": "transformers AST", **{key: getattr(model.config, key) for key in _DECIDING}}
    return TransformerEncoder(
        "ast",
        Modality.AUDIO,
        model,
        model.layers,
        model.layernorm,
        reads=reads,
        width=model.config.hidden_size,
        architecture=architecture,
        compute=compute,
    )


ENCODERS = {"ast": EncoderKind((Modality.AUDIO,), build, default=True, playground="audio")}
