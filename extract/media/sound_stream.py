"""A recording's samples as FFmpeg decodes them, in pieces, to the end that its decoder finds.

Knows packets, frames and kinds of samples; does not know what is made of them.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from epalm.errors import MediaError
from epalm.extract.media.containers import open_container
from epalm.extract.media.limits import Limits
from epalm.extract.media.media_warnings import warn_about
from epalm.extract.media.truncation import announced_frames
from epalm.media import MediaFile

PIECE = 1 << 18  # samples at a time, of all channels; a packet may have more
MAX_CHANNELS = 256
_PLANES = 8
# Formats of which FFmpeg takes the number of samples from the header, not from the file's size.
_COUNTED = ("flac", "wv", "tta", "ape", "nistsphere")
# Codecs without loss: their check sums find what is damaged.
_CHECKED = ("flac", "wavpack", "tta", "ape")
# FFmpeg's kinds of samples: which value is silence, and how many make 1.
_SCALES = {"u8": (128, 1 << 7), "s16": (0, 1 << 15), "s32": (0, 1 << 31), "flt": (0, 1), "dbl": (0, 1)}


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


def read_sound(medium: MediaFile, limits: Limits) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (N, channels) float32 of the first audio stream, none of them empty, and their rate (Hz).

    Raises:
        MediaError: no sound, damaged, cut off or beyond the limits.
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
        for frame in map(_readable, _frames(medium, container, streams[0])):
            now = _Form(frame.format.name, frame.layout.nb_channels, frame.sample_rate)
            if waiting and (now != form or size >= PIECE):
                yield form.samples(waiting), form.rate
                waiting, size = [], 0
            form = now
            waiting.append(frame.to_ndarray())
            size += waiting[-1].size
        if waiting:
            yield form.samples(waiting), form.rate


def _readable(frame: AudioFrame) -> AudioFrame:
    """PyAV would read beyond the planes where channels are more than eight: they take turns in one instead."""
    if not frame.format.is_planar or frame.layout.nb_channels <= _PLANES:
        return frame
    (packed,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    return packed


def _frames(medium: MediaFile, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """All of them. Packets that do not decode are passed over, as players do, if they are the fewer: with a warning."""
    samples, decoded, faulty, fault = 0, 0, 0, None
    last: AudioFrame | None = None
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
                last = frame
                yield frame
    announced, there, what, to_the_end = 0, decoded, "frames", False
    if container.format.name == "mp3":
        announced, to_the_end = _of_first_frame(medium, decoded)
    elif length := _samples_announced(container, stream):
        announced, there, what = length, samples, "samples"
        to_the_end = last is not None and (last.time or 0) * last.sample_rate + last.samples >= length - 0.5
    if there < announced:
        _judge(announced, there, what, to_the_end=to_the_end)
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
        to_the_end = end is not None and end <= file.seek(0, os.SEEK_END)
    one_too_many = decoded == announced - 1 and (end is None or to_the_end)  # as some writers have it
    return announced - one_too_many, to_the_end


def _judge(announced: int, there: int, what: str, *, to_the_end: bool) -> None:
    """A recording of which the end is there, and most of the rest, has holes; another one is cut off."""
    if not to_the_end or 2 * there < announced:
        raise MediaError(
            f"the recording is cut off, or damaged: it announces {announced:,} {what}, and {there:,} decode",
            hint="download or copy it again",
        )
    _warn(f"of {announced:,} {what} that it announces {there:,} decode")


def _warn(holes: str) -> None:
    warn_about(
        f"the recording is damaged, and the damage left out: {holes}", "play it, and convert or download it again"
    )
