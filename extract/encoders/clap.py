"""Sounds: the audio tower of CLAP of transformers (HTSAT), on ten seconds. It has no `[CLS]` token: the mean is taken.

Its stages halve the map and double the width: the blocks of the last one alone, two in those published, give tokens of
one width. A shorter recording is repeated, as CLAP's own extractor does it; of a longer one, where that takes ten
seconds at random, the first ten are taken, and none are fused.
"""

import json
from typing import TYPE_CHECKING

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute, Encoder, EncoderChoice, EncoderKind
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

    from epalm.weights import Source

_DEFAULT_WEIGHTS = "laion/clap-htsat-unfused"
_OF_EXTRACTOR = (
    "feature_size", "sampling_rate", "hop_length", "max_length_s", "fft_window_size", "padding_value", "frequency_min",
    "frequency_max", "top_db", "truncation", "padding",
)  # fmt: skip


def build(choice: EncoderChoice, source: "Source", compute: Compute) -> Encoder:
    """A CLAP's audio tower with `source`'s weights: a Hub name, or a folder of transformers. Raises UsageError."""
    from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

    from epalm.extract.encoders.pretrained import deciding, load_model
    from epalm.extract.encoders.transformer import Backbone, TransformerEncoder
    from epalm.extract.inputs.log_mel import LogMelInput

    model, extractor = load_model(
        source,
        "audio encoder",
        ClapAudioModelWithProjection,
        default=_DEFAULT_WEIGHTS,
        read=ClapFeatureExtractor.from_pretrained,
    )
    config, tower = model.config, model.audio_model
    inner = tower.audio_encoder
    truncation = "fusion" if config.enable_fusion else "rand_trunc"
    extractor = extractor or ClapFeatureExtractor(config.num_mel_bins, truncation=truncation)
    if extractor.feature_size != config.num_mel_bins:
        fault = f"the feature extractor gives {extractor.feature_size} mel bins, the model takes {config.num_mel_bins}"
        raise UsageError(fault, hint="correct preprocessor_config.json beside the weights")

    def run(inputs: "torch.Tensor") -> object:
        banks = inputs[:, None, :, :-1]  # (B, 1, frames, mels)
        if not config.enable_fusion:
            return tower(banks)
        return tower(banks.expand(-1, 4, -1, -1), is_longer=banks.new_zeros(len(banks), 1).bool())

    (rows, columns), folded = inner.input_resolutions[-1], inner.freq_ratio

    def arrange(tokens: "torch.Tensor") -> "torch.Tensor":
        """Of the square map that the energies were folded into, stretches of time below one another: (f, t) again."""
        stretches: torch.Tensor = tokens.unflatten(1, (folded, rows // folded, columns))
        return stretches.transpose(1, 2).flatten(1, 3)

    backbone = Backbone(
        model=tower,
        blocks=inner.layers[-1].blocks,
        norm=inner.norm,
        width=inner.num_features,
        grid=(rows // folded, folded * columns),
        arrange=arrange,
        run=run,
    )
    kept = json.dumps({key: getattr(extractor, key) for key in _OF_EXTRACTOR})
    reads = LogMelInput("ClapFeatureExtractor", kept, extractor.nb_max_samples)
    return TransformerEncoder(choice, backbone, reads, compute, {"family": "transformers CLAP", **deciding(config)})


ENCODERS = {"clap": EncoderKind((Modality.AUDIO,), build)}
