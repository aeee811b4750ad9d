"""Sounds as waveforms: wav2vec 2, HuBERT, WavLM and their like, of transformers. No `[CLS]` token: the mean is taken.

Each recording is read at its own length, so that no padding comes near its tokens: some of these models see it in the
norm of their first convolution, whatever mask they get.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.weights import Source

_DEFAULT_WEIGHTS = "facebook/wav2vec2-base"
_SECONDS = 30  # of a recording: attention over it grows with the square
_AT_ONCE = 120  # seconds of sound: the first convolution was measured to take 17 MB a second


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A model of waveforms with `source`'s weights: a Hub name, or a folder of transformers. Raises UsageError."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    from epalm.extract.encoders.pretrained import deciding, load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder
    from epalm.extract.inputs.preprocess import WaveformInput
    from epalm.extract.inputs.processors import sampling_rate

    class WaveformEncoder(TransformerEncoder):
        """Inputs (B, samples), NaN behind the end of each."""

        def encode(
            self, batch: torch.Tensor, layers: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
        ) -> torch.Tensor:
            """See `Encoder`; recordings of one length go together, some at a time."""
            own = super().encode
            lengths, groups = (~batch.isnan()).sum(dim=1), list[torch.Tensor]()
            for length in lengths.unique().tolist():
                groups += (lengths == length).nonzero()[:, 0].split(max(1, _AT_ONCE * rate // length))
            tokens = torch.cat([own(batch[one, : lengths[one[0]]], layers, dtype) for one in groups])
            return tokens[torch.cat(groups).argsort().to(tokens.device)]

    def adapt(config: Any) -> None:
        if not hasattr(config, "conv_kernel"):
            fault = f"a {config.model_type} does not read waveforms"
            raise UsageError(fault, hint="name a wav2vec 2, HuBERT or WavLM, or see --encoder")
        # Of training, and behind the last block: checkpoints of other tasks lack the tensors.
        config.mask_time_prob = config.mask_feature_prob = 0.0
        config.add_adapter = False

    model, extractor = load_model(
        source,
        "audio encoder",
        default=_DEFAULT_WEIGHTS,
        default_config=Wav2Vec2Config,
        adapt=adapt,
        read=Wav2Vec2FeatureExtractor.from_pretrained,
    )
    config, inner, extractor = model.config, model.encoder, extractor or Wav2Vec2FeatureExtractor()
    rate = sampling_rate(extractor.sampling_rate)
    least = 1
    for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
        least = (least - 1) * stride + kernel
    backbone = Backbone(
        model=model,
        blocks=inner.layers,
        # In the others the last norm is the last block's own, and the encoder's stands in front of the blocks.
        norm=inner.layer_norm if getattr(config, "do_stable_layer_norm", False) else torch.nn.Identity(),
        width=config.hidden_size,
        grid=(_SECONDS * rate // math.prod(config.conv_stride),),  # as many as there can be
    )
    reads = WaveformInput(rate, _SECONDS * rate, least, extractor.do_normalize)
    return WaveformEncoder(choice, backbone, reads, compute, {"family": "transformers waveform", **deciding(config)})


ENCODERS = {"wav2vec2": EncoderKind((Modality.AUDIO,), build)}
