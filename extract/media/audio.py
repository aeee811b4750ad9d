"""Audio file → mono waveform at the encoder's rate.

FFmpeg reads every format, chosen by the content: what a header says of the length is believed only to notice that
less is there. Sound is decoded in pieces and only its beginning is kept, so memory does not grow with the recording.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import av
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from epalm.errors import MediaError
from epalm.extract.media.chunks import announced_frames
from epalm.extract.media.containers import open_container
from epalm.extract.media.limits import Limits, out_of_memory, warn_about
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

    Warns of channels that cancel each other out in what is kept. Raises MediaError: no sound, no sample, damaged, cut
    off, beyond the limits, or values that are not numbers.
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
            first_rate = first_rate or own_rate
            if own_rate != first_rate or not RATES[0] <= own_rate <= RATES[1]:
                before = f", and was {first_rate} Hz before" if own_rate != first_rate else ""
                hint = f"convert it to one rate of {RATES[0]:,} to {RATES[1]:,} Hz"
                raise MediaError(f"the sampling rate is {own_rate} Hz{before}", hint=hint)
            resampler = resampler or soxr.ResampleStream(own_rate, rate, 1, dtype="float32")
            total += float(average.sum(dtype=np.float64))
            count += len(average)
            limits.check("seconds", count / own_rate)
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
    average: np.ndarray = reduce(np.add, piece.T) / np.float32(channels)
    return average


def _samples(kind: str, channels: int, arrays: list[np.ndarray]) -> np.ndarray:
    """What frames of FFmpeg's `kind` hold, one after the other, as (N, channels) float32 in about −1 … 1."""
    if kind.removesuffix("p") not in _SCALES:
        raise MediaError(f"samples of the kind {kind} are not supported", hint="convert it to 16 bits or float")
    silence, full_scale = _SCALES[kind.removesuffix("p")]
    joined = np.concatenate(arrays, axis=1)
    values = np.ascontiguousarray(joined.T) if kind.endswith("p") else joined.reshape(-1, channels)
    with np.errstate(over="ignore"):  # a double beyond float32 is infinite, and noticed as such
        samples = values.astype(np.float32)
    if silence:
        samples -= np.float32(silence)
    if full_scale != 1:
        samples *= np.float32(1 / full_scale)  # a power of two: nothing is rounded twice
    return samples


def _pieces(medium: MediaFile, limits: Limits) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (N, channels) float32 of the first audio stream and their rate (Hz).

    The last one is empty, for which the resampler gives out what it still holds. Raises MediaError.
    """
    with open_container(medium, "audio", limits) as (container, stream):
        context = stream.codec_context
        if context.channels > MAX_CHANNELS:
            raise MediaError(f"the recording has {context.channels} channels", hint="mix it down")
        if context.name in _CHECKED:
            context.options = {**context.options, "err_detect": "crccheck+explode"}
        form, waiting, size = ("", 0, 0), list[np.ndarray](), 0  # kind, channels, and rate: these may change
        for frame in _frames(medium, container, stream, limits):
            now = frame.format.name, frame.layout.nb_channels, frame.sample_rate
            if waiting and (now != form or size >= PIECE):
                yield _samples(*form[:2], waiting), form[2]
                waiting, size = [], 0
            form = now
            waiting.append(frame.to_ndarray())
            size += waiting[-1].size
        if waiting:
            yield _samples(*form[:2], waiting), form[2]
            yield np.zeros((0, 1), np.float32), form[2]


def _frames(medium: MediaFile, container: InputContainer, stream: AudioStream, limits: Limits) -> Iterator[AudioFrame]:
    """All of them. Packets that do not decode are passed over, as players do, if they are the fewer: with a warning."""
    samples, decoded, faulty, fault, end = 0, 0, 0, None, 0.0
    announced = 0  # 0 for unknown
    if container.format.name in _COUNTED and stream.duration and stream.time_base:
        limits.check("seconds", float(stream.duration * stream.time_base))
        announced = round(stream.duration * stream.time_base * stream.codec_context.sample_rate)
    for packet in _packets(container, stream, whatever_follows=announced > 0):
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
                many = frame.format.is_planar and frame.layout.nb_channels > _PLANES  # PyAV would read beyond them
                packed = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate) if many else None
                yield from packed.resample(frame) if packed else [frame]
    present, what, is_whole = samples, "samples", end >= announced - 0.5
    if container.format.name == "mp3":
        present, what = decoded, "frames"
        with medium.open() as file:
            announced, last = announced_frames(file)
            is_whole = last is not None and last <= file.seek(0, os.SEEK_END)
        announced -= decoded == announced - 1 and (last is None or is_whole)  # one too many, as some writers have it
    if present < announced:
        # A recording of which the end is there, and most of the rest, has holes; another one is cut off.
        if not is_whole or 2 * present < announced:
            raise MediaError(
                f"the recording is cut off, or damaged: it announces {announced:,} {what}, and {present:,} decode",
                hint="download or copy it again",
            )
        _warn(f"of {announced:,} {what} that it announces {present:,} decode")
    if fault and faulty > decoded:
        raise fault
    if fault and not 0 < announced <= present:
        _warn(f"{faulty:,} of {faulty + decoded:,} packets do not decode")


def _packets(
    container: InputContainer, stream: AudioStream, *, whatever_follows: bool
) -> Iterator["Packet[AudioStream] | None"]:
    """Those with content, for an empty one would tell the decoder that this is the end; then None, which does."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.InvalidDataError:  # behind the last one of a known number there may be anything
        if not whatever_follows:
            raise
    yield None


def _warn(holes: str) -> None:
    hint = "play it, and convert or download it again"
    warn_about(f"the recording is damaged, and the damage left out: {holes}", hint)
