"""Small random encoders of clips and recordings, in the folders that transformers saves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from epalm.extract.encoders.registry import Encoder, EncoderChoice, build_encoder
from tests.extract.encoders.families import vary

SIDE, WIDTH, DEPTH = 32, 48, 3
SQUARE = {"height": SIDE, "width": SIDE}
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
CLIPS = SHAPE | {"image_size": SIDE, "patch_size": 8, "intermediate_size": 96}
VIDEOMAE = CLIPS | {
    "num_frames": 6, "decoder_num_hidden_layers": 1, "decoder_hidden_size": 24, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 48,
}  # fmt: skip
WAVES = SHAPE | {
    "intermediate_size": 96, "conv_dim": (16, 16, 24), "conv_kernel": (10, 8, 4), "conv_stride": (5, 4, 2),
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 3,
}  # fmt: skip
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
AST = SHAPE | {
    "intermediate_size": 96, "max_length": 64, "num_mel_bins": 32, "frequency_stride": 10, "time_stride": 10
}  # fmt: skip
WHISPER = {
    "d_model": WIDTH, "encoder_layers": DEPTH, "encoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_layers": 2,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 96, "vocab_size": 64, "max_source_positions": 100,
    "num_mel_bins": 40, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
CLAP = {
    "patch_embeds_hidden_size": 24, "depths": (1, DEPTH), "num_attention_heads": (2, 4), "hidden_size": WIDTH,
    "projection_dim": 16, "patch_embed_input_channels": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A tiny model and its own processor as a folder holds them; `part` of the model has `blocks` and its last `norm`.

    `tokens` is the rule that is asked for, and `special` tokens stand before those of the medium.
    """

    kind: str
    model: Callable[[], Any]
    processor: Any
    part: str
    blocks: str
    norm: str | None
    tokens: str | None = None
    special: int = 0

    def save(self, folder: Path, *, varied: bool = True) -> Encoder:
        """The folder, with random weights, and the encoder of it; not `varied`, norms are as they begin."""
        torch.manual_seed(0)
        model = self.model()
        if varied:
            vary(model)
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return build_encoder(EncoderChoice(self.kind, str(folder), tokens=self.tokens), device="cpu")


def _waves(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**WAVES | options))


def clap_model(**options: Any) -> Callable[[], Any]:
    return lambda: hf.ClapAudioModelWithProjection(hf.ClapAudioConfig(**CLAP | options))


VIDEO = {
    "VideoMAE": Family(
        "videomae",
        lambda: hf.VideoMAEForPreTraining(hf.VideoMAEConfig(**VIDEOMAE, use_mean_pooling=False)),
        hf.VideoMAEVideoProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
        "videomae", "encoder.layer", "videomae.layernorm",
    ),
    "VideoMAE, finetuned": Family(
        "videomae",
        lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**VIDEOMAE, num_labels=3)),
        hf.VideoMAEVideoProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
        "videomae", "encoder.layer", "fc_norm",
    ),
    "V-JEPA 2": Family(
        "vjepa2",
        lambda: hf.VJEPA2Model(hf.VJEPA2Config(
            **SHAPE, crop_size=SIDE, patch_size=8, frames_per_clip=4, pred_hidden_size=24, pred_num_attention_heads=2,
            pred_num_hidden_layers=2,
        )),
        hf.VJEPA2VideoProcessor(crop_size=SQUARE),
        "encoder", "layer", "encoder.layernorm",
    ),
    "TimeSformer": Family(
        "timesformer",
        lambda: hf.TimesformerModel(hf.TimesformerConfig(**CLIPS, num_frames=4)),
        hf.VideoMAEVideoProcessor(size=SQUARE, crop_size=SQUARE),
        "", "encoder.layer", "layernorm", "mean", 1,
    ),
}  # fmt: skip
AUDIO = {
    "Whisper": Family(
        "whisper", lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**WHISPER)),
        hf.WhisperFeatureExtractor(feature_size=40, chunk_length=2),
        "model.encoder", "layers", "model.encoder.layer_norm",
    ),
    "CLAP": Family(
        "clap", clap_model(), hf.ClapFeatureExtractor(truncation="rand_trunc", max_length_s=3),
        "audio_model", "audio_encoder.layers.1.blocks", "audio_model.audio_encoder.norm",
    ),
    "wav2vec 2": Family("wav2vec2", _waves("Wav2Vec2"), hf.Wav2Vec2FeatureExtractor(), "", "encoder.layers", None),
    "wav2vec 2, stable": Family(
        "wav2vec2", _waves("Wav2Vec2", **STABLE), hf.Wav2Vec2FeatureExtractor(do_normalize=False),
        "", "encoder.layers", "encoder.layer_norm",
    ),
    "HuBERT": Family(
        "wav2vec2", _waves("Hubert", **STABLE), hf.Wav2Vec2FeatureExtractor(),
        "", "encoder.layers", "encoder.layer_norm",
    ),
    "WavLM": Family("wav2vec2", _waves("WavLM"), hf.Wav2Vec2FeatureExtractor(), "", "encoder.layers", None),
    "data2vec": Family(
        "wav2vec2", _waves("Data2VecAudio", conv_pos_kernel_size=5), hf.Wav2Vec2FeatureExtractor(),
        "", "encoder.layers", None,
    ),
    "AST": Family(
        "ast", lambda: hf.ASTModel(hf.ASTConfig(**AST)), hf.ASTFeatureExtractor(num_mel_bins=32, max_length=64),
        "", "layers", "layernorm", "mean", 2,
    ),
}  # fmt: skip
