"""From a media file to the array that an encoder takes: decoding, size, statistics.

Each input is a plain frozen dataclass: it travels to the decoding processes, and `describe()` gives all that
decides its numbers. Knows no encoder by name.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.audio import read_waveform
from epalm.extract.image import read_image
from epalm.extract.video import read_frames

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
Triple = tuple[float, float, float]


class Input(Protocol):
    """Reads one media file into an encoder's input; raises MediaError for a file that cannot be decoded."""

    def __call__(self, path: Path) -> np.ndarray: ...  # noqa: D102
    def describe(self) -> dict[str, Any]:
        """Everything that decides the numbers, as JSON."""
        ...


@dataclass(frozen=True)
class Pixels:
    """What an image encoder asks of its pixels: (height, width), resizing, and statistics in 0 … 1."""

    size: tuple[int, int]
    interpolation: Interpolation
    mean: Triple
    std: Triple

    def resize(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 → (height, width, 3) uint8: straight to the size, proportions not kept."""
        height, width = self.size
        if picture.shape[:2] == self.size:
            return np.ascontiguousarray(picture)
        image = Image.fromarray(np.ascontiguousarray(picture))
        return np.asarray(image.resize((width, height), _RESAMPLING[self.interpolation]))

    def normalise(self, pictures: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) uint8 → (..., 3, H, W) float32 with the encoder's mean and standard deviation."""
        mean, std = (np.asarray(statistic, np.float32) for statistic in (self.mean, self.std))
        values: np.ndarray = (pictures.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(np.moveaxis(values, -1, -3))


@dataclass(frozen=True)
class ImageInput:
    """Image file → (3, H, W) float32."""

    pixels: Pixels

    def __call__(self, path: Path) -> np.ndarray:
        """Raises MediaError."""
        return self.pixels.normalise(self.pixels.resize(read_image(path)))

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        return {"medium": "image", **_json(self.pixels)}


@dataclass(frozen=True)
class VideoInput:
    """Video file → (frames, 3, H, W) float32: the middle frame of each of `frames` equal intervals."""

    pixels: Pixels
    frames: int

    def __call__(self, path: Path) -> np.ndarray:
        """Raises MediaError."""
        return self.pixels.normalise(np.stack(read_frames(path, self.frames, self.pixels.resize)))

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        sampling = "middle of equal intervals"
        return {"medium": "video", "frames": self.frames, "sampling": sampling, **_json(self.pixels)}


@dataclass(frozen=True)
class AudioInput:
    """Audio file → (frames, mel_bins) float32: log-mel bank, padded or cut, then (x − mean) / (2·std)."""

    rate: int  # Hz
    mel_bins: int
    frames: int  # of 10 ms
    mean: float
    std: float

    def __call__(self, path: Path) -> np.ndarray:
        """Raises MediaError."""
        # Here, because it needs torch: processes that decode pictures and clips start without it.
        from epalm.extract.filterbank import filter_bank, fit_frames, samples_for

        wave = read_waveform(path, rate=self.rate, keep=samples_for(self.frames, self.rate))
        bank = filter_bank(wave.samples, rate=self.rate, mel_bins=self.mel_bins, mean=wave.mean)
        if not len(bank):
            raise MediaError(
                f"the recording is shorter than one window: {len(wave.samples)} samples",
                hint="use a longer one",
            )
        return ((fit_frames(bank, self.frames) - self.mean) / (2 * self.std)).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        return {"medium": "audio", "filter_bank": "kaldi, hann 25/10 ms, mean subtracted, htk", **_json(self)}


def _json(settings: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
