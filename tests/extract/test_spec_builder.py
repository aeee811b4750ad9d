"""Which layers are stored, what names a feature set, what is recorded of libraries; live features are the same.

An upgrade of a library that may change pixels or samples is seen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, features

from epalm.cache.care.why import library_differences
from epalm.cache.spec import parse_layers
from epalm.cache.token_rules import TokenLayout
from epalm.errors import MediaError, UsageError
from epalm.extract import spec_builder
from epalm.extract.encoders.registry import EncoderChoice
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Input, Pixels, VideoInput
from epalm.extract.live import LiveFeatures
from epalm.extract.spec_builder import feature_spec, library_versions
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample, Task
from tests.extractions import encode_files

PIXELS = Pixels((4, 4), "nearest", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LAYERS = (1, 2)


class Means:
    """The smallest encoder: the mean of each channel, times the block's number."""

    kind, modality, depth, width, layout = "means", Modality.IMAGE, 3, 3, TokenLayout(True, ())
    device, precision = torch.device("cpu"), "float32"

    def __init__(self, read: Input | None = None, weights: str = "w") -> None:
        self.input: Input = read or ImageInput(PIXELS)
        self.weights = weights
        self.batches: list[int] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "weights": self.weights}

    def encode(self, batch: torch.Tensor, layers: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        self.batches.append(len(batch))
        means = batch.float().mean(dim=(2, 3))
        return torch.stack([means * block for block in layers], dim=1).unsqueeze(2)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("last:6", range(6, 12)), ("all", range(12)), ("0-2", range(3)), ("11, 7".replace(" ", ""), [7, 11])],
)
def test_layers(text: str, blocks: Any) -> None:
    assert parse_layers(text, range(12)) == tuple(blocks)


@pytest.mark.parametrize("text", ["last:13", "last:0", "5-12", "4-3", "12", "", "-1", "last", "1;2", "0-99999"])
def test_layers_out_of_range_or_malformed(text: str) -> None:
    with pytest.raises(UsageError):
        parse_layers(text, range(12))


def test_everything_that_decides_numbers_is_in_the_fingerprint() -> None:
    bicubic = Pixels((4, 4), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    shifted = Pixels((4, 4), "nearest", (0.1, 0.0, 0.0), (1.0, 1.0, 1.0))
    specs = [
        feature_spec(Means(), LAYERS),
        feature_spec(Means(), (0, 1)),
        feature_spec(Means(), LAYERS, "float32"),
        feature_spec(Means(weights="v"), LAYERS),
        *(feature_spec(Means(ImageInput(pixels)), LAYERS) for pixels in (bicubic, shifted)),
        *(feature_spec(Means(VideoInput(PIXELS, frames)), LAYERS) for frames in (4, 8)),
        *(feature_spec(Means(AudioInput(16_000, 8, 64, 0.0, std)), LAYERS) for std in (1.0, 2.0)),
    ]
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert feature_spec(Means(), LAYERS).fingerprint == specs[0].fingerprint
    with pytest.raises(UsageError):
        feature_spec(Means(), LAYERS, "int8")


def test_live_features_are_what_is_stored(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (9, 7), (number * 40, 5, 200)).save(tmp_path / f"{number}.png")
    samples = [Sample(f"{n}", Modality.IMAGE, f"{n % 4}.png", Task.CAPTION, "test") for n in (3, 0, 7, 1, 2, 4)]
    encoder = Means()
    live = LiveFeatures(encoder, LAYERS, Dataset("test", tmp_path, tuple(samples)))
    assert (live.layers, live.width) == (2, 3)
    gathered = live.gather(samples)
    assert encoder.batches == [4]  # each medium once
    stored = [encode_files([MediaFile(tmp_path / sample.media)], encoder, LAYERS) for sample in samples]
    np.testing.assert_allclose(gathered, np.concatenate(stored), rtol=1e-6)
    assert str(tmp_path) not in str(live.describe())
    with pytest.raises(MediaError, match=r"none\.png"):
        live.gather([Sample("x", Modality.IMAGE, "none.png", Task.CAPTION, "test")])


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"kind": "vit", "modality": "smell"}', '{"modality": null, "a": 1}'])
def test_a_damaged_choice_of_encoder_is_one_error(kept: str) -> None:
    with pytest.raises(UsageError, match="damaged"):
        EncoderChoice.from_record({"encoder": kept})


def test_the_decoders_inside_of_packages_are_recorded() -> None:
    recorded = library_versions()
    assert recorded["ffmpeg"] == av.ffmpeg_version_info
    assert recorded["libjpeg"] == features.version("jpg")
    assert recorded["av"] == av.__version__ and recorded["pillow"] == features.version("pil")
    assert {"numpy", "torch", "torchvision", "soxr", "libsoxr"} <= recorded.keys()
    assert all(isinstance(version, str) and version for version in recorded.values())


def test_another_build_with_the_same_number_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    before = library_versions()
    monkeypatch.setattr(av, "ffmpeg_version_info", "7.0")
    assert library_differences(before, library_versions()) == [f"ffmpeg {before['ffmpeg']} → 7.0"]
    monkeypatch.undo()
    monkeypatch.setattr(spec_builder, "_CODECS", {})
    assert any("libjpeg" in one for one in library_differences(before, library_versions()))
