"""Audio file → mono waveform at the encoder's rate, through soundfile, or PyAV for other containers.

Sound is read in pieces and only its beginning is kept, so memory does not grow with the recording.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from epalm.errors import MediaError
from epalm.extract.containers import open_container
from epalm.extract.media_file import require_file

_PIECE = 1 << 18  # samples per reading
_UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
MAX_CHANNELS = 256


@dataclass(frozen=True)
class Waveform:
    """`samples` (N,) float32 in about −1 … 1, the beginning of a recording; `mean` is of all of it."""

    samples: np.ndarray
    mean: float


def read_waveform(path: Path, *, rate: int, keep: int) -> Waveform:
    """The recording's channels averaged, resampled to `rate` (Hz), its first `keep` samples kept.

    Raises:
        MediaError: no sound, no sample, damaged, or values that are not numbers.
    """
    require_file(path)
    total, count, kept, length = 0.0, 0, list[np.ndarray](), 0
    resampler: soxr.ResampleStream | None = None
    for piece, own_rate in _with_end(_pieces(path)):
        if not np.isfinite(piece).all():
            raise MediaError("the recording has values that are not numbers", hint="export it again")
        if resampler is None:
            resampler = soxr.ResampleStream(own_rate, rate, 1, dtype="float32")
        total += float(piece.sum(dtype=np.float64))
        count += len(piece)
        if length < keep:
            resampled = resampler.resample_chunk(piece, last=len(piece) == 0)
            kept.append(resampled)
            length += len(resampled)
    if not count:
        raise MediaError("the recording has no samples", hint="record or download it again")
    return Waveform(np.concatenate(kept)[:keep], total / count)


def _with_end(pieces: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
    """The pieces that are not empty, then an empty one: the resampler gives out what it still holds."""
    rate = 0
    for piece, rate in pieces:
        if len(piece):
            yield piece, rate
    if rate:
        yield np.zeros(0, np.float32), rate


def _pieces(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Mono pieces (N,) float32 and their rate."""
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        if error.code != _UNKNOWN_FORMAT:
            raise _damaged(error) from error
        yield from _container_pieces(path)
        return
    with file:
        if file.channels > MAX_CHANNELS:
            raise MediaError(f"the recording has {file.channels} channels", hint="mix it down")
        try:
            for block in file.blocks(_PIECE, dtype="float32", always_2d=True):
                yield block.mean(axis=1, dtype=np.float32), file.samplerate
        except soundfile.LibsndfileError as error:
            raise _damaged(error) from error


def _damaged(error: soundfile.LibsndfileError) -> MediaError:
    return MediaError(
        f"the audio cannot be decoded: {error.error_string}", hint="play it, and convert or download it again"
    )


def _container_pieces(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    with open_container(path, "audio") as container:
        if not container.streams.audio:
            raise MediaError("the file has no audio stream", hint="use --modality video for silent videos")
        to_float = av.AudioResampler(format="fltp")
        for frame in container.decode(audio=0):
            for part in to_float.resample(frame):
                yield part.to_ndarray().mean(axis=0, dtype=np.float32), part.sample_rate
