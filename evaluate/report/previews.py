"""Media made small enough for a page: a thumbnail, a few frames, or some seconds of sound with their spectrogram.

The media are decoded in processes of their own, with the limits of an extraction; what comes back is encoded anew, so
that none of a medium's own bytes get into the page. The same media give the same bytes.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames, read_frames
from epalm.media import MediaFile
from epalm.samples import Modality

RATE = 16_000  # Hz, of the sound in a page
SECONDS = 10  # of a recording that are heard
FRAMES = 4
_SIDE, _FRAME_SIDE = 320, 200  # pixels, of a picture's and a frame's longer side
_LOSSLESS = 96  # pixels; smaller pictures are kept as they are
_QUALITY = 80  # of WebP
_COLUMNS, _MEL_BINS = 320, 64  # pixels of a spectrogram
_DARKEST = 5  # per cent of the energies that are shown black
# From silence to loud: dark violet, red, yellow, as bright in grey as in colour.
_COLOURS = ((5, 4, 20), (63, 15, 98), (130, 37, 110), (196, 62, 86), (245, 125, 60), (252, 200, 110), (252, 253, 191))


@dataclass(frozen=True)
class Preview:
    """`pictures` in WebP or PNG: a thumbnail, frames in order, or a spectrogram; `sound` in MP3 or FLAC."""

    pictures: tuple[bytes, ...]
    sound: bytes | None = None
    seconds: float = 0.0  # of the sound


def make_previews(
    media: Sequence[MediaFile], modality: Modality, *, workers: int, limits: Limits, timeout: float
) -> Iterator[Preview | MediaError]:
    """What a page shows of each medium, in order, or why there is nothing; `timeout` in seconds for one medium.

    Raises:
        EpalmError: no decoding process can be started.
    """
    read, make = _WAYS[modality]
    with DecodePool(partial(read, limits=limits), workers, timeout=timeout, memory_limit=limits.memory) as pool:
        for decoded in pool.decode([Request(medium, (VIEW_0,)) for medium in media], ahead=max(1, 2 * workers)):
            yield decoded.result if isinstance(decoded.result, MediaError) else make(decoded.result)


def _thumbnail(medium: MediaFile, _: Sequence[View], limits: Limits) -> np.ndarray:
    """(1, H, W, 3) uint8."""
    return _smaller(read_image(medium, limits, least=(_SIDE, _SIDE)).pixels, _SIDE)[None]


def _strip(medium: MediaFile, _: Sequence[View], limits: Limits) -> np.ndarray:
    """(N, H, W, 3) uint8 of the middles of at most four equal intervals."""
    (frames,) = read_frames(
        medium,
        lambda total: [middle_frames(total, min(FRAMES, total))],
        lambda _, frame: _smaller(frame, _FRAME_SIDE),
        limits,
    )
    first = frames[0].shape
    return np.stack([frame for frame in frames if frame.shape == first])


def _recording(medium: MediaFile, _: Sequence[View], limits: Limits) -> np.ndarray:
    """(N,) float32 in −1 … 1 at 16 kHz."""
    wave: np.ndarray = read_waveform(medium, limits, rate=RATE, keep=RATE * SECONDS).samples
    return wave.clip(-1, 1)


def _smaller(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=None))


def _of_pixels(pictures: np.ndarray) -> Preview:
    return Preview(tuple(_picture(pixels) for pixels in pictures))


def _of_wave(wave: np.ndarray) -> Preview:
    return Preview((_picture(_spectrogram(wave)),), _sound(wave), len(wave) / RATE)


def _picture(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    if max(pixels.shape[:2]) <= _LOSSLESS:
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY)
    return file.getvalue()


def _sound(wave: np.ndarray) -> bytes:
    import soundfile

    file = io.BytesIO()
    kind = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"  # Ogg would have a random number in it
    soundfile.write(file, wave, RATE, format=kind)
    return file.getvalue()


def _spectrogram(wave: np.ndarray) -> np.ndarray:
    """(bins, time, 3) uint8, low tones at the bottom."""
    from epalm.extract.inputs.filterbank import filter_bank

    bank = filter_bank(wave, rate=RATE, mel_bins=_MEL_BINS)
    if not len(bank):
        bank = np.zeros((1, _MEL_BINS), np.float32)
    low, high = np.percentile(bank, _DARKEST), bank.max()
    shade = np.clip((bank - low) / max(high - low, 1e-6), 0, 1)
    grey = Image.fromarray((255 * shade.T[::-1]).astype(np.uint8)).resize((_COLUMNS, 2 * _MEL_BINS))
    steps = np.linspace(0, 255, len(_COLOURS))
    table = np.stack([np.interp(np.arange(256), steps, channel) for channel in zip(*_COLOURS, strict=True)], axis=1)
    coloured: np.ndarray = table.astype(np.uint8)[np.asarray(grey)]
    return coloured


_WAYS: dict[Modality, tuple[Callable[..., np.ndarray], Callable[[np.ndarray], Preview]]] = {
    Modality.IMAGE: (_thumbnail, _of_pixels),
    Modality.VIDEO: (_strip, _of_pixels),
    Modality.AUDIO: (_recording, _of_wave),
}
