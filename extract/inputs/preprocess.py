"""From a medium to the array that an encoder takes: decoding, views, size; then statistics.

An input travels to the decoding processes, which send back what takes least room, and `describe()` gives all that
decides its numbers. Knows no encoder by name.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.inputs.augment import VIEW_0, PixelAugmentation, PixelDraw, SpecAugment, View
from epalm.extract.inputs.fit import Fit, Interpolation
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames, random_frames, read_frames
from epalm.media import MediaFile
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

Triple = tuple[float, float, float]
_EPSILON = 1e-7  # of a waveform's variance
_SMOOTH = ("bilinear", "bicubic", "lanczos")  # with the others a pixel's shift within a block is seen
_REDUCED_TO = 2  # times the encoder's size
_STRIPS = 8  # a picture resized by its shorter edge has at most so small a share of the pixels that one may have


@dataclass(frozen=True)
class Input:
    """Reads one medium for an encoder, in as many views as are asked for; then makes a batch of them its input.

    Media beyond the `limits` are refused. `augmentation` draws the views other than 0; None: they are view 0 again.
    """

    modality: ClassVar[Modality]
    limits: Limits = field(default_factory=Limits, kw_only=True)
    augmentation: PixelAugmentation | SpecAugment | None = field(default=None, kw_only=True)

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """The views, from one decoding: (V, ...), pixels uint8 or a filter bank float32, before any statistics.

        Raises MediaError: a medium that cannot be decoded.
        """
        raise NotImplementedError

    def normalise(self, raw: "torch.Tensor") -> "torch.Tensor":
        """A batch (B, ...) of raw views, on any device → what the encoder takes, float32."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Everything that decides the numbers of view 0, as JSON."""
        raise NotImplementedError

    def describe_augmentation(self) -> dict[str, Any] | None:
        """Everything else that decides the numbers of the other views, but their seed; None: they are view 0."""
        return self.augmentation.describe() if self.augmentation else None


@dataclass(frozen=True)
class Pixels:
    """What an image encoder asks of its pixels: (height, width), resizing, and statistics in 0 … 1.

    `fit` brings view 0 to the size; None: it is resized straight to it, proportions not kept (the paper's way).
    """

    size: tuple[int, int]
    interpolation: Interpolation
    mean: Triple
    std: Triple
    fit: Fit | None = None

    def describe(self) -> dict[str, Any]:
        """All of it, as JSON."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return values | {"fit": self.fit.describe()} if self.fit else {k: v for k, v in values.items() if k != "fit"}


@dataclass(frozen=True)
class _PixelInput(Input):
    pixels: Pixels
    augmentation: PixelAugmentation | None = field(default_factory=PixelAugmentation, kw_only=True)

    def _draw(self, view: View, height: int, width: int) -> PixelDraw | None:
        """The view's draw for a picture of that size; None: nothing is drawn."""
        if view.number == 0 or self.augmentation is None:
            return None
        return self.augmentation.draw(view.rng("pixels"), height, width)

    def _fit(
        self,
        picture: np.ndarray,
        draw: PixelDraw | None = None,
        margins: tuple[float, float, float, float] = (0, 0, 0, 0),
    ) -> np.ndarray:
        """(H, W, 3) uint8 → (height, width, 3), uint8 or as `fit` gives it: as drawn, or as they are fitted.

        Of what is resized straight to the size, `margins` (left, top, right, bottom) in pixels are left out.
        """
        size, interpolation, fit = self.pixels.size, self.pixels.interpolation, self.pixels.fit
        if draw:
            return draw.apply(picture, size, interpolation)
        if fit:
            height, width = fit.resized(*picture.shape[:2])
            self.limits.check_pixels(width, height, share=_STRIPS, of="what is resized by its shorter edge")
            return fit(picture, size, interpolation)
        if picture.shape[:2] == size and not any(margins):
            return np.ascontiguousarray(picture)
        image, resampling = Image.fromarray(np.ascontiguousarray(picture)), Image.Resampling[interpolation.upper()]
        left, top, right, bottom = margins
        return np.asarray(image.resize(size[::-1], resampling, (left, top, image.width - right, image.height - bottom)))

    def normalise(self, raw: "torch.Tensor") -> "torch.Tensor":
        """(..., H, W, 3) uint8 → (..., 3, H, W) float32 with the encoder's mean and standard deviation."""
        values = raw.movedim(-1, -3).contiguous().float()
        mean, std = (values.new_tensor(one)[:, None, None] for one in (self.pixels.mean, self.pixels.std))
        return values.div_(255).sub_(mean).div_(std)


@dataclass(frozen=True)
class ImageInput(_PixelInput):
    """Image file → (V, H, W, 3) uint8; normalised (B, 3, H, W) float32.

    `reduced_jpeg` decodes a JPEG at 1/2, 1/4 or 1/8 of its size where that is at least twice the encoder's on both
    sides and the interpolation is bilinear, bicubic or Lanczos: measured to be 1.3 to 7 times as fast from three
    megapixels on. View 0 then differs from full decoding by at most 16 of 255 in any value, and on average by at most
    1.2 for photographs and 4 for saturated patterns finer than the encoder's pixels.
    """

    modality = Modality.IMAGE
    reduced_jpeg: bool = False

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        height, width = self.pixels.size
        reduced = self.reduced_jpeg and self.pixels.interpolation in _SMOOTH
        least = (_REDUCED_TO * height, _REDUCED_TO * width) if reduced else None
        picture, size, margins = read_image(medium, self.limits, least=least)
        return np.stack([self._fit(picture, self._draw(view, *size), margins) for view in views])

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        reduced = {"jpeg": f"reduced to {_REDUCED_TO} times the size or more"} if self.reduced_jpeg else {}
        return {"medium": "image", **reduced, **self.pixels.describe()}


@dataclass(frozen=True)
class VideoInput(_PixelInput):
    """Video file → (V, frames, H, W, 3) uint8; normalised (B, frames, 3, H, W) float32.

    View 0 has the middle frame of each of `frames` equal intervals, the others a random one of each.
    """

    modality = Modality.VIDEO
    frames: int

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        draws: dict[int, PixelDraw | None] = {}  # one for all frames, made when the first one's size is known

        def choose(total: int) -> list[list[int]]:
            draws.clear()
            return [
                random_frames(total, self.frames, view.rng("frames"))
                if view.number and self.augmentation
                else middle_frames(total, self.frames)
                for view in views
            ]

        def keep(place: int, frame: np.ndarray) -> np.ndarray:
            if place not in draws:
                draws[place] = self._draw(views[place], *frame.shape[:2])
            return self._fit(frame, draws[place])

        return np.stack([np.stack(kept) for kept in read_frames(medium, choose, keep, self.limits)])

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        sampling = "middle of equal intervals"
        return {"medium": "video", "frames": self.frames, "sampling": sampling, **self.pixels.describe()}

    def describe_augmentation(self) -> dict[str, Any] | None:
        """See `Input`."""
        return {"sampling": "random in equal intervals", **self.augmentation.describe()} if self.augmentation else None


@dataclass(frozen=True)
class AudioInput(Input):
    """Audio file → (V, frames, mel_bins) float32: log-mel bank, padded or cut; normalised (x − mean) / (2·std)."""

    modality = Modality.AUDIO
    rate: int  # Hz
    mel_bins: int
    frames: int  # of 10 ms
    mean: float
    std: float
    augmentation: SpecAugment | None = field(default_factory=SpecAugment, kw_only=True)

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        # Here, because it needs torch: processes that decode pictures and clips start without it.
        from epalm.extract.inputs.filterbank import filter_bank, fit_frames, samples_for

        wave = read_waveform(medium, self.limits, rate=self.rate, keep=samples_for(self.frames, self.rate))
        bank = filter_bank(wave.samples, rate=self.rate, mel_bins=self.mel_bins, mean=wave.mean)
        if not len(bank):
            fault = f"the recording is shorter than one window: {len(wave.samples)} samples"
            raise MediaError(fault, hint="use a longer one")
        if not np.isfinite(bank).all():
            raise MediaError("the recording is louder than can be computed with", hint="scale it to −1 … 1")
        fitted, masks = fit_frames(bank, self.frames), self.augmentation
        return np.stack([masks.apply(fitted, view.rng("mask")) if view.number and masks else fitted for view in views])

    def normalise(self, raw: "torch.Tensor") -> "torch.Tensor":
        """See `Input`."""
        return (raw - self.mean) / (2 * self.std)

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        settings = {name: getattr(self, name) for name in ("rate", "mel_bins", "frames", "mean", "std")}
        return {"medium": "audio", "filter_bank": "kaldi, hann 25/10 ms, mean subtracted, htk", **settings}


@dataclass(frozen=True)
class WaveformInput(Input):
    """Audio file → (V, samples) float32, its first `samples` or all of it with NaN behind: nothing is drawn for views.

    Normalised (B, samples): of mean 0 and variance 1 over what is there, with `unit`; NaN stays. A recording of fewer
    than `least` samples is refused.
    """

    modality = Modality.AUDIO
    rate: int  # Hz
    samples: int
    least: int
    unit: bool

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        """See `Input`."""
        wave = read_waveform(medium, self.limits, rate=self.rate, keep=self.samples).samples
        if len(wave) < self.least:
            fault = f"the recording is too short: {len(wave)} samples, where the encoder takes {self.least}"
            raise MediaError(fault, hint="use a longer one")
        if not np.isfinite(np.vdot(wave, wave)):
            raise MediaError("the recording is louder than can be computed with", hint="scale it to −1 … 1")
        padded = np.pad(wave.astype(np.float32), (0, self.samples - len(wave)), constant_values=np.nan)
        return np.repeat(padded[None], len(views), axis=0)

    def normalise(self, raw: "torch.Tensor") -> "torch.Tensor":
        """See `Input`."""
        if not self.unit:
            return raw
        centred = raw - raw.nanmean(dim=1, keepdim=True)
        return centred / (centred.square().nanmean(dim=1, keepdim=True) + _EPSILON).sqrt()

    def describe(self) -> dict[str, Any]:
        """See `Input`."""
        return {"medium": "audio", "waveform": "mean 0, variance 1" if self.unit else "as it is", "rate": self.rate,
                "samples": self.samples}  # fmt: skip
