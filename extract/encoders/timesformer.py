"""Video encoder: TimeSformer of transformers, divided space-time or space-only. Knows nothing of the cache.

Space-only is the paper's: only the spatial self-attention, on one frame, without temporal branch and time
embedding. It reads pictures as well as the middle frame of clips, so that what is trained on pictures can be
tested on videos.
"""

from typing import Any

import torch
from transformers import TimesformerConfig, TimesformerModel, VideoMAEImageProcessor

from epalm.errors import UsageError
from epalm.extract.encoders.cls_tokens import ClsTokens
from epalm.extract.encoders.compute import Compute
from epalm.extract.encoders.protocol import TOKEN_RULE
from epalm.extract.inputs.preprocess import ImageInput, Input, Interpolation, Pixels, VideoInput
from epalm.samples import Modality
from epalm.weights import Source, freeze, from_pretrained, load, seeded

DEFAULT_WEIGHTS = "facebook/timesformer-base-finetuned-k400"  # method: encoders of eP-ALM
_DECIDING = (
    "attention_type", "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps",
    "num_attention_heads", "num_hidden_layers", "patch_size", "qkv_bias",
)  # fmt: skip
_INTERPOLATION: dict[int, Interpolation] = {
    0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming",
}  # fmt: skip  # Pillow's numbers, as image processors write them
_KINETICS: dict[str, Any] = {
    "image_mean": (0.45, 0.45, 0.45),
    "image_std": (0.225, 0.225, 0.225),
    "resample": 2,
}


class TimeSformer:
    """A transformers TimesformerModel; `modality` says whether it reads videos or (space-only) pictures."""

    def __init__(
        self,
        model: TimesformerModel,
        pixels: Pixels,
        compute: Compute,
        *,
        frames: int,
        modality: Modality = Modality.VIDEO,
    ) -> None:
        space_only = model.config.attention_type == "space_only"
        if space_only and frames != 1:
            raise UsageError("space-only attention reads one frame", hint="leave out --frames")
        self.kind = "timesformer-space" if space_only else "timesformer"
        self.modality = modality
        self.input: Input = ImageInput(pixels) if modality is Modality.IMAGE else VideoInput(pixels, frames)
        self.depth, self.width = model.config.num_hidden_layers, model.config.hidden_size
        self._config = {key: getattr(model.config, key) for key in _DECIDING}
        self._trained_frames = 1 if space_only else model.config.num_frames
        # The blocks share the configuration; the time embedding is interpolated to the frames there are.
        model.config.num_frames = frames
        self._weights = freeze(model)
        self._model, self._compute = compute.place(model, model.encoder.layer), compute
        self.device, self.precision = compute.device, compute.precision
        self._tokens = ClsTokens(model.encoder.layer, model.layernorm)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "kind": self.kind,
            "architecture": {
                "family": "transformers Timesformer", "frames": self._trained_frames, **self._config
            },
            "weights": self._weights,
            "token": TOKEN_RULE,
        }  # fmt: skip

    @property
    def module(self) -> torch.nn.Module:
        """See `TrainableEncoder`."""
        module: torch.nn.Module = self._model
        return module

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Clips (B, T, 3, H, W), or pictures (B, 3, H, W), → (B, depth, D)."""
        clips = batch if batch.ndim == 5 else batch.unsqueeze(1)
        with self._compute.autocast():
            return self._tokens.of(lambda: self._model(clips.to(self.device)))


def build_timesformer(
    source: Source, compute: Compute, *, space_only: bool, frames: int | None, modality: Modality
) -> TimeSformer:
    """A TimeSformer with `source`'s weights: a Hub name or a folder that transformers saved.

    `frames` [default: as many as it was trained with; 1 when space-only]. Raises UsageError.
    """
    named = source if source.name or source.random else Source(DEFAULT_WEIGHTS)
    what = "video encoder"
    config, settings = TimesformerConfig(), dict(_KINETICS)
    if named.name:
        where = str(named.folder or named.name)
        config = load(named, what, lambda: TimesformerConfig.from_pretrained(where))
        if getattr(config, "model_type", None) != "timesformer":
            raise UsageError(f"{named.name!r} is a {config.model_type}, no TimeSformer", hint="see --encoder")
        settings |= load(named, what, lambda: VideoMAEImageProcessor.get_image_processor_dict(where)[0])
    if space_only:
        config.attention_type, config.num_frames = "space_only", 1
    if source.random:
        with seeded(source):
            model = TimesformerModel(config)
            for parameter in model.parameters():
                if not parameter.any() and parameter.ndim == 3:  # embeddings that start at zero
                    torch.nn.init.trunc_normal_(parameter, std=0.02)
    else:
        model = from_pretrained(TimesformerModel, named, what, config)
    pixels = Pixels(
        (config.image_size, config.image_size),
        _INTERPOLATION[int(settings["resample"])],
        tuple(settings["image_mean"]),
        tuple(settings["image_std"]),
    )
    return TimeSformer(model, pixels, compute, frames=frames or config.num_frames, modality=modality)
