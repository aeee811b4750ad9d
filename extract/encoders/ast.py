"""Sounds: the Audio Spectrogram Transformer (AST) of transformers.

Its `[CLS]` token, not the distillation token and not their mean. The mean of its other tokens (`--tokens mean`) leaves
out those of padding.
"""

import math
from typing import TYPE_CHECKING, Any

from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

    from epalm.weights import Source

_DEFAULT_WEIGHTS = "MIT/ast-finetuned-audioset-10-10-0.4593"  # method: encoders of eP-ALM
_DECIDING = (
    "frequency_stride", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "max_length",
    "num_attention_heads", "num_hidden_layers", "num_mel_bins", "patch_size", "qkv_bias", "time_stride",
)  # fmt: skip
_AUDIOSET: dict[str, Any] = {"sampling_rate": 16_000, "mean": -4.2677393, "std": 4.5689974}


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """An AST with `source`'s weights: a Hub name or a folder that transformers saved. Raises UsageError."""
    from transformers import ASTModel

    from epalm.extract.encoders.pretrained import load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder
    from epalm.extract.inputs.preprocess import AudioInput
    from epalm.extract.inputs.processors import preprocessing_settings, sampling_rate

    model, settings = load_model(source, "audio encoder", ASTModel, default=_DEFAULT_WEIGHTS)
    settings, config = _AUDIOSET | settings, model.config
    with preprocessing_settings():
        mean, std = float(settings["mean"]), float(settings["std"])
        if not settings.get("do_normalize", True):
            mean, std = 0.0, 0.5  # twice the deviation is divided by
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"mean {mean} and deviation {std} of energies")
    rate = sampling_rate(settings["sampling_rate"])
    reads = AudioInput(rate, config.num_mel_bins, config.max_length, mean, std)
    architecture = {"family": "transformers AST", **{key: getattr(config, key) for key in _DECIDING}}

    rows, times = model.embeddings.get_shape(config)

    def real(inputs: "torch.Tensor") -> "torch.Tensor":
        """Patches (B, rows × times) that begin in the recording; behind it, energies were set to 0."""
        there = (inputs != reads.normalise(inputs.new_zeros(()))).any(dim=2)  # (B, frames)
        there[:, 0] = True
        until_end = there.flip(1).cummax(dim=1).values.flip(1)
        return until_end[:, :: config.time_stride][:, :times].repeat(1, rows)

    backbone = Backbone(
        model=model,
        blocks=model.layers,
        norm=model.layernorm,
        width=config.hidden_size,
        special=2,
        cls=True,
        grid=(rows, times),
        real=real,
    )
    return TransformerEncoder(choice, backbone, reads, compute, architecture)


ENCODERS = {"ast": EncoderKind((Modality.AUDIO,), build, default=True, playground="audio")}
