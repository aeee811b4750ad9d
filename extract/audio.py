"""Audio file → mono waveform at the encoder's rate, through soundfile, or PyAV for other containers.

Sound is read in pieces and only its beginning is kept, so memory does not grow with the recording.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import soundfile
import soxr

from epalm.errors import MediaError
from epalm.extract.containers import decode_all, open_container
from epalm.extract.limits import Limits, out_of_memory
from epalm.extract.media_file import require_file
from epalm.media import MediaFile

_PIECE = 1 << 18  # samples per reading, of all channels
_UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
_UNKNOWN_LENGTH = 1 << 62  # frames; libsndfile gives the largest number that there is
MAX_CHANNELS = 256
RATES = (100, 10_000_000)  # Hz; resampling from others takes long, or makes too much of too little
# FFmpeg's kinds of samples: which value is silence, and how many make 1.
_SCALES = {"u8": (128, 1 << 7), "s16": (0, 1 << 15), "s32": (0, 1 << 31), "flt": (0, 1), "dbl": (0, 1)}


@dataclass(frozen=True)
class Waveform:
    """`samples` (N,) float32 in about −1 … 1, the beginning of a recording; `mean` is of all of it."""

    samples: np.ndarray
    mean: float


def read_waveform(medium: MediaFile, limits: Limits, *, rate: int, keep: int) -> Waveform:
    """The recording's channels averaged, resampled to `rate` (Hz), its first `keep` samples kept.

    Raises:
        MediaError: no sound, no sample, damaged, beyond the limits, or values that are not numbers.
    """
    require_file(medium, limits)
    total, count, kept, length = 0.0, 0, list[np.ndarray](), 0
    resampler: soxr.ResampleStream | None = None
    first_rate = 0
    try:
        for piece, own_rate in _with_end(_pieces(medium, limits)):
            if not np.isfinite(piece).all():
                raise MediaError("the recording has values that are not numbers", hint="export it again")
            if resampler is None:
                _require_rate(own_rate)
                first_rate = own_rate
                resampler = soxr.ResampleStream(own_rate, rate, 1, dtype="float32")
            if own_rate != first_rate:
                raise MediaError(
                    f"the sampling rate changes from {first_rate} to {own_rate} Hz", hint="convert it to one rate"
                )
            total += float(piece.sum(dtype=np.float64))
            count += len(piece)
            limits.check_seconds(count / own_rate)
            at_once = max(1, _PIECE * own_rate // rate)
            for start in range(0, max(1, len(piece)), at_once):
                if length < keep:
                    resampled = resampler.resample_chunk(piece[start : start + at_once], last=len(piece) == 0)
                    kept.append(resampled)
                    length += len(resampled)
    except MemoryError as error:
        raise out_of_memory("audio") from error
    if not count:
        raise MediaError("the recording has no samples", hint="record or download it again")
    return Waveform(np.concatenate(kept)[:keep], total / count)


def _require_rate(rate: int) -> None:
    lowest, highest = RATES
    if not lowest <= rate <= highest:
        raise MediaError(f"the sampling rate is {rate} Hz", hint=f"convert it to {lowest:,} to {highest:,} Hz")


def _with_end(pieces: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
    """The pieces that are not empty, then an empty one: the resampler gives out what it still holds."""
    rate = 0
    for piece, rate in pieces:
        if len(piece):
            yield piece, rate
    if rate:
        yield np.zeros(0, np.float32), rate


def _pieces(medium: MediaFile, limits: Limits) -> Iterator[tuple[np.ndarray, int]]:
    """Mono pieces (N,) float32 and their rate."""
    try:
        with medium.open() as opened:
            # A descriptor has no name: a name's ending would decide what libsndfile makes of content it does not know.
            source = opened if medium.size is not None else opened.fileno()
            with soundfile.SoundFile(source, closefd=False) as file:
                if file.channels > MAX_CHANNELS:
                    raise MediaError(f"the recording has {file.channels} channels", hint="mix it down")
                _require_rate(file.samplerate)
                if file.frames < _UNKNOWN_LENGTH:
                    limits.check_seconds(file.frames / file.samplerate)
                    size = max(1, _PIECE // file.channels)
                    while len(block := file.read(size, dtype="float32", always_2d=True)):
                        yield block.mean(axis=1, dtype=np.float32), file.samplerate
                    return
    except soundfile.LibsndfileError as error:
        if error.code != _UNKNOWN_FORMAT:
            raise MediaError(
                f"the audio cannot be decoded: {error.error_string}",
                hint="play it, and convert or download it again",
            ) from error
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror}", hint="check its permissions") from error
    # A format that libsndfile does not know, or a length: it cannot read without one.
    yield from _container_pieces(medium, limits)


def _container_pieces(medium: MediaFile, limits: Limits) -> Iterator[tuple[np.ndarray, int]]:
    with open_container(medium, "audio", limits) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            raise MediaError("the file has no audio stream", hint="use --modality video for silent videos")
        streams[0].codec_context.thread_count = 1  # several files are decoded at once instead
        for frame in decode_all(container, streams[0]):
            yield _mono(frame), frame.sample_rate


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """The frame's channels averaged, (N,) float32."""
    kind = frame.format.name.removesuffix("p")
    if kind not in _SCALES:
        raise MediaError(f"samples of the kind {kind} are not supported", hint="convert it to 16 bits or float")
    values = frame.to_ndarray()  # planar (channels, N), else (1, N · channels)
    if not frame.format.is_planar:
        values = values.reshape(frame.samples, -1).T
    silence, range_ = _SCALES[kind]
    samples = values if range_ == 1 else (values.astype(np.float64) - silence) / range_
    mono: np.ndarray = samples.astype(np.float32).mean(axis=0, dtype=np.float32)
    return mono
