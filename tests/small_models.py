"""Tiny random encoders of video and audio, in the form in which transformers saves them. Images: see `conftest`."""

import json
from pathlib import Path

import torch


def save_small_timesformer(folder: Path, *, depth: int) -> Path:
    """A random TimeSformer of 16×16 pixels, width 24 and 2 frames."""
    from transformers import TimesformerConfig, TimesformerModel

    torch.manual_seed(0)
    config = TimesformerConfig(
        image_size=16, patch_size=8, num_frames=2, hidden_size=24, num_hidden_layers=depth, num_attention_heads=2,
        intermediate_size=48, initializer_range=0.2,
    )  # fmt: skip
    model = TimesformerModel(config)
    for parameter in model.parameters():
        if not parameter.any():  # embeddings that start at zero
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    pixels = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "resample": 3, "size": {"shortest_edge": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def save_small_ast(folder: Path, *, depth: int) -> Path:
    """A random AST of 32 mel bins, 64 frames and width 24."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=24, num_hidden_layers=depth, num_attention_heads=2, intermediate_size=48, max_length=64,
        num_mel_bins=32, frequency_stride=10, time_stride=10, initializer_range=0.2,
    )  # fmt: skip
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64, mean=-4.0, std=4.5).save_pretrained(folder)
    return folder
