"""Audio encoder: the Audio Spectrogram Transformer (AST) of transformers. Knows nothing about the cache."""

from typing import Any

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from epalm.errors import UsageError
from epalm.extract.encoders.cls_tokens import ClsTokens
from epalm.extract.encoders.compute import Compute
from epalm.extract.encoders.protocol import TOKEN_RULE
from epalm.extract.inputs.preprocess import AudioInput, Input
from epalm.samples import Modality
from epalm.weights import Source, freeze, from_pretrained, load, seeded

DEFAULT_WEIGHTS = "MIT/ast-finetuned-audioset-10-10-0.4593"  # method: encoders of eP-ALM
_DECIDING = (
    "frequency_stride", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "max_length",
    "num_attention_heads", "num_hidden_layers", "num_mel_bins", "patch_size", "qkv_bias", "time_stride",
)  # fmt: skip
_AUDIOSET: dict[str, Any] = {"sampling_rate": 16_000, "mean": -4.2677393, "std": 4.5689974}


class AudioTransformer:
    """A transformers ASTModel; its `[CLS]` token, not the distillation token and not their mean."""

    kind = "ast"
    modality = Modality.AUDIO

    def __init__(self, model: ASTModel, settings: AudioInput, compute: Compute) -> None:
        self.input: Input = settings
        self.depth, self.width = model.config.num_hidden_layers, model.config.hidden_size
        self._config = {key: getattr(model.config, key) for key in _DECIDING}
        self._weights = freeze(model)
        self._model, self._compute = compute.place(model, model.layers), compute
        self.device, self.precision = compute.device, compute.precision
        self._tokens = ClsTokens(model.layers, model.layernorm)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "kind": self.kind,
            "architecture": {"family": "transformers AST", **self._config},
            "weights": self._weights,
            "token": TOKEN_RULE,
        }

    @property
    def module(self) -> torch.nn.Module:
        """See `TrainableEncoder`."""
        module: torch.nn.Module = self._model
        return module

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Filter banks (B, frames, mel_bins) → (B, depth, D)."""
        with self._compute.autocast():
            return self._tokens.of(lambda: self._model(batch.to(self.device)))


def build_audio_transformer(source: Source, compute: Compute) -> AudioTransformer:
    """An AST with `source`'s weights: a Hub name or a folder that transformers saved. Raises UsageError."""
    named = source if source.name or source.random else Source(DEFAULT_WEIGHTS)
    what = "audio encoder"
    config, settings = ASTConfig(), dict(_AUDIOSET)
    if named.name:
        where = str(named.folder or named.name)
        config = load(named, what, lambda: ASTConfig.from_pretrained(where))
        if getattr(config, "model_type", None) != "audio-spectrogram-transformer":
            raise UsageError(f"{named.name!r} is a {config.model_type}, no AST", hint="see --encoder")
        settings |= load(named, what, lambda: ASTFeatureExtractor.get_feature_extractor_dict(where)[0])
    if source.random:
        with seeded(source):
            model = ASTModel(config)
    else:
        model = from_pretrained(ASTModel, named, what, config)
    reads = AudioInput(
        rate=int(settings["sampling_rate"]),
        mel_bins=config.num_mel_bins,
        frames=config.max_length,
        mean=float(settings["mean"]),
        std=float(settings["std"]),
    )
    return AudioTransformer(model, reads, compute)
