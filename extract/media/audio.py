"""Audio file → mono waveform at the encoder's rate.

FFmpeg reads every format, chosen by the content: what a header says of the length is believed only to notice that
less is there. Sound is decoded in pieces and only its beginning is kept, so memory does not grow with the recording.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from epalm.errors import MediaError
from epalm.extract.media.containers import open_container
from epalm.extract.media.limits import Limits, out_of_memory
from epalm.extract.media.media_warnings import warn_about
from epalm.extract.media.truncation import announced_frames
from epalm.media import MediaFile

RATES = (100, 10_000_000)  # Hz; resampling from others takes long, or makes too much of too little
MAX_CHANNELS = 256
PIECE = 1 << 18  # samples at a time, of all channels; a packet may have more
_CANCELLED = 1e-3  # of the channels' energy: an average with less is not what they sound like
_PLANES = 8
# Formats of which FFmpeg takes the number of samples from the header, not from the file's size.
_COUNTED = ("flac", "wv", "tta", "ape", "nistsphere")
# Codecs without loss: their check sums find what is damaged.
_CHECKED = ("flac", "wavpack", "tta", "ape")
# FFmpeg's kinds of samples: which value is silence, and how many make 1.
_SCALES = {"u8": (128, 1 << 7), "s16": (0, 1 << 15), "s32": (0, 1 << 31), "flt": (0, 1), "dbl": (0, 1)}


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
        for piece, own_rate in _pieces(medium, limits):
            with np.errstate(invalid="ignore", over="ignore"):
                average = _average(piece)
            if not np.isfinite(average).all():
                raise MediaError("the recording has values that are not numbers", hint="export it again")
            if resampler is None:
                if not RATES[0] <= own_rate <= RATES[1]:
                    hint = f"convert it to {RATES[0]:,} to {RATES[1]:,} Hz"
                    raise MediaError(f"the sampling rate is {own_rate} Hz", hint=hint)
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


class _Form(NamedTuple):
    """What samples are, as a frame says: it may change within a recording."""

    kind: str
    channels: int
    rate: int  # Hz

    def samples(self, arrays: list[np.ndarray]) -> np.ndarray:
        """What frames hold, one after the other, as (N, channels) float32 in about −1 … 1."""
        kind, planar = self.kind.removesuffix("p"), self.kind.endswith("p")  # planar: (channels, N) each
        if kind not in _SCALES:
            raise MediaError(f"samples of the kind {kind} are not supported", hint="convert it to 16 bits or float")
        joined = np.concatenate(arrays, axis=1)
        values = np.ascontiguousarray(joined.T) if planar else joined.reshape(-1, self.channels)
        silence, one = _SCALES[kind]
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite, and noticed as such
            samples = values.astype(np.float32)
        if silence:
            samples -= np.float32(silence)
        if one != 1:
            samples *= np.float32(1 / one)  # a power of two: nothing is rounded twice
        return samples


def _pieces(medium: MediaFile, limits: Limits) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (N, channels) float32 of the first audio stream and their rate (Hz).

    The last one is empty, for which the resampler gives out what it still holds. Raises MediaError.
    """
    with open_container(medium, "audio", limits) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            raise MediaError("the file has no audio stream", hint="use --modality video for silent videos")
        context = streams[0].codec_context
        if context.channels > MAX_CHANNELS:
            raise MediaError(f"the recording has {context.channels} channels", hint="mix it down")
        context.thread_count = 1  # several files are decoded at once instead
        if context.name in _CHECKED:
            context.options = {**context.options, "err_detect": "crccheck+explode"}
        form, waiting, size = _Form("", 0, 0), list[np.ndarray](), 0
        for frame in _frames(medium, container, streams[0]):
            now = _Form(frame.format.name, frame.layout.nb_channels, frame.sample_rate)
            if waiting and (now != form or size >= PIECE):
                yield form.samples(waiting), form.rate
                waiting, size = [], 0
            form = now
            waiting.append(frame.to_ndarray())
            size += waiting[-1].size
        if waiting:
            yield form.samples(waiting), form.rate
            yield np.zeros((0, 1), np.float32), form.rate


def _readable(frame: AudioFrame) -> AudioFrame:
    """PyAV would read beyond the planes where channels are more than eight: they take turns in one instead."""
    if not frame.format.is_planar or frame.layout.nb_channels <= _PLANES:
        return frame
    (packed,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    return packed


def _frames(medium: MediaFile, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """All of them. Packets that do not decode are passed over, as players do, if they are the fewer: with a warning."""
    samples, decoded, faulty, fault, end = 0, 0, 0, None, 0.0
    for packet in _packets(container, stream):
        try:
            frames = stream.codec_context.decode(packet)
        except MemoryError:  # FFmpeg's is one of its errors, too
            raise
        except av.FFmpegError as error:
            fault, faulty = error, faulty + 1
            continue
        decoded += packet is not None
        for frame in frames:
            if frame.samples:
                samples += frame.samples
                end = (frame.time or 0) * frame.sample_rate + frame.samples
                yield _readable(frame)
    if container.format.name == "mp3":
        there, what = decoded, "frames"
        announced, whole = _of_first_frame(medium, decoded)
    else:
        there, what, announced = samples, "samples", _samples_announced(container, stream)
        whole = end >= announced - 0.5
    if there < announced:
        # A recording of which the end is there, and most of the rest, has holes; another one is cut off.
        if not whole or 2 * there < announced:
            raise MediaError(
                f"the recording is cut off, or damaged: it announces {announced:,} {what}, and {there:,} decode",
                hint="download or copy it again",
            )
        _warn(f"of {announced:,} {what} that it announces {there:,} decode")
    if fault and faulty > decoded:
        raise fault
    if fault and not 0 < announced <= there:
        _warn(f"{faulty:,} of {faulty + decoded:,} packets do not decode")


def _packets(container: InputContainer, stream: AudioStream) -> Iterator["Packet[AudioStream] | None"]:
    """Those with content, for an empty one would tell the decoder that this is the end; then None, which does."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.InvalidDataError:  # behind the last one there may be anything
        if not _samples_announced(container, stream):
            raise
    yield None


def _samples_announced(container: InputContainer, stream: AudioStream) -> int:
    """0 for unknown."""
    if container.format.name not in _COUNTED or not stream.duration or not stream.time_base:
        return 0
    return round(stream.duration * stream.time_base * stream.codec_context.sample_rate)


def _of_first_frame(medium: MediaFile, decoded: int) -> tuple[int, bool]:
    """For MP3: the frames announced, 0 for unknown, and whether as many bytes are there as are announced."""
    with medium.open() as file:
        announced, end = announced_frames(file)
        whole = end is not None and end <= file.seek(0, os.SEEK_END)
    one_too_many = decoded == announced - 1 and (end is None or whole)  # as some writers have it
    return announced - one_too_many, whole


def _warn(holes: str) -> None:
    warn_about(
        f"the recording is damaged, and the damage left out: {holes}", "play it, and convert or download it again"
    )
