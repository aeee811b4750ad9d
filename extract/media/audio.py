"""Audio file → mono waveform at the encoder's rate.

FFmpeg reads every format, chosen by the content: what a header says of the length is believed only to notice that
less is there. Sound is decoded in pieces and only its beginning is kept, so memory does not grow with the recording.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from epalm.errors import MediaError
from epalm.extract.media.limits import Limits, out_of_memory
from epalm.extract.media.media_warnings import warn_about
from epalm.extract.media.sound_stream import PIECE, read_sound
from epalm.media import MediaFile

RATES = (100, 10_000_000)  # Hz; resampling from others takes long, or makes too much of too little
_CANCELLED = 1e-3  # of the channels' energy: an average with less is not what they sound like


@dataclass(frozen=True)
class Waveform:
    """`samples` (N,) float32 in about −1 … 1, the beginning of a recording; `mean` is of all of it."""

    samples: np.ndarray
    mean: float


def read_waveform(medium: MediaFile, limits: Limits, *, rate: int, keep: int) -> Waveform:
    """The recording's channels averaged, resampled to `rate` (Hz), its first `keep` samples kept.

    Warns of channels that cancel each other out in what is kept.

    Raises:
        MediaError: no sound, no sample, damaged, cut off, beyond the limits, or values that are not numbers.
    """
    total, count, kept, length = 0.0, 0, list[np.ndarray](), 0
    in_channels, in_average = 0.0, 0.0  # energy of what is kept
    resampler: soxr.ResampleStream | None = None
    first_rate = 0
    try:
        for piece, own_rate in _with_end(read_sound(medium, limits)):
            with np.errstate(invalid="ignore", over="ignore"):
                average = _average(piece)
            if not np.isfinite(average).all():
                raise MediaError("the recording has values that are not numbers", hint="export it again")
            if resampler is None:
                _require_rate(own_rate)
                first_rate = own_rate
                resampler = soxr.ResampleStream(own_rate, rate, 1, dtype="float32")
            if own_rate != first_rate:
                raise MediaError(
                    f"the sampling rate changes from {first_rate} to {own_rate} Hz", hint="convert it to one rate"
                )
            total += float(average.sum(dtype=np.float64))
            count += len(average)
            limits.check_seconds(count / own_rate)
            if length < keep:
                in_channels += float(np.vdot(piece, piece)) / piece.shape[1]
                in_average += float(np.vdot(average, average))
            at_once = max(1, PIECE * own_rate // rate)
            for start in range(0, max(1, len(average)), at_once):
                if length < keep:
                    resampled = resampler.resample_chunk(average[start : start + at_once], last=len(average) == 0)
                    kept.append(resampled)
                    length += len(resampled)
    except MemoryError as error:
        raise out_of_memory("audio") from error
    if not count:
        raise MediaError("the recording has no samples", hint="record or download it again")
    if in_average < _CANCELLED * in_channels:
        warn_about(
            f"the channels cancel each other out: their average, which is used, has {in_average / in_channels:.2%} of "
            "their energy",
            hint="keep one of them alone: ffmpeg -i FILE -af 'pan=mono|c0=c0' OTHER",
        )
    return Waveform(np.concatenate(kept)[:keep], total / count)


def _require_rate(rate: int) -> None:
    lowest, highest = RATES
    if not lowest <= rate <= highest:
        raise MediaError(f"the sampling rate is {rate} Hz", hint=f"convert it to {lowest:,} to {highest:,} Hz")


def _average(piece: np.ndarray) -> np.ndarray:
    """The channels (N, C) averaged, (N,) float32. Of a few, one by one is several times as fast."""
    channels = piece.shape[1]
    if channels >= 8:  # from here on NumPy sums in another order
        mean: np.ndarray = piece.mean(axis=1, dtype=np.float32)
        return mean
    average = piece[:, 0].copy()
    for channel in range(1, channels):
        average += piece[:, channel]
    average /= np.float32(channels)
    return average


def _with_end(pieces: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
    """The pieces, then an empty one: the resampler gives out what it still holds."""
    rate = 0
    for piece, rate in pieces:
        yield piece, rate
    if rate:
        yield np.zeros((0, 1), np.float32), rate
