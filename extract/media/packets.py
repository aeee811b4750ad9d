"""The packets of a clip, listed without decoding, and the frames wanted found from them by seeking to key frames.

Where anything about the clip is doubtful this raises `DoubtError`, and its caller decodes from the beginning instead:
what is found here are the very frames that decoding all of the clip gives. One thing differs: of damage in a part of
the clip that no frame is wanted from, only packets that were lost or zeroed are noticed. Knows packets and frames; does
not know which are wanted.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from epalm.extract.media.limits import Limits
from epalm.extract.media.lost_packets import Coverage

# Containers that store the time of every frame; codecs of which a packet is one frame (VP8 hides some in packets
# of their own), which need nothing of what lies before a key frame, and whose decoders tell one by its content.
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_CODECS = {"h264", "hevc", "vp9", "av1"}
_ZEROS = bytes(64)  # no packet of these codecs holds so many in a row, unless a part of the file was never written


class DoubtError(Exception):
    """Seeking cannot be relied on in this clip."""


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a clip of N frames, K of them key frames. Times are in the stream's units."""

    times: np.ndarray  # (N,) int64: when each frame is shown, ascending
    packets: np.ndarray  # (N,) int64: the frames' packets, as numbered in the file
    keys: np.ndarray  # (K,) int64: the key frames' numbers, ascending
    starts: np.ndarray  # (K,) int64: times from which seeking backwards finds the key frames' packets
    doubtful: bool
    torn: bool = False  # whether a part of a packet was never written
    lost: int = 0  # frames, with a part of the file

    @property
    def count(self) -> int:
        """How many packets have content: the number of frames, unless some are hidden or dropped."""
        return len(self.times)

    def number_of(self, time: int | None) -> int:
        """The number of the frame that is shown at that time. Raises DoubtError when there is none."""
        number = int(np.searchsorted(self.times, -1 if time is None else time))
        if time is None or number == self.count or self.times[number] != time:
            raise DoubtError
        return number

    def key_of(self, number: int) -> int:
        """Which of the key frames is the last one at or before that frame."""
        return int(np.searchsorted(self.keys, number, side="right")) - 1


def index_packets(container: InputContainer, stream: VideoStream, limits: Limits) -> PacketIndex:
    """Read the clip once without decoding it.

    Raises:
        MediaError: more frames or seconds than the limits allow.
    """
    # In the file's order. Arrays, as a million frames in lists of tuples take a hundred times as much memory.
    shown, starts, key = array("q"), array("q"), array("b")
    coverage = Coverage(container.format.name)
    first: int | None = None  # times
    last = 0
    sought = container.format.name in _CONTAINERS and stream.codec_context.codec.canonical_name in _CODECS
    doubtful, torn = not sought, False
    unit = float(stream.time_base or 0)
    for packet in container.demux():
        mine = packet.stream_index == stream.index
        coverage.add(packet, mine=mine)
        if not mine or not packet.size:
            continue
        time = 0 if packet.pts is None else packet.pts
        # Packets cut away by an edit list are decoded and not shown.
        doubtful |= packet.pts is None or packet.is_discard or packet.is_corrupt
        torn = torn or (sought and _ZEROS in bytes(packet))
        shown.append(time)
        starts.append(time if packet.dts is None else min(time, packet.dts))
        key.append(packet.is_keyframe)
        limits.check_frames(len(shown))
        at = packet.dts if packet.pts is None else packet.pts
        if at is not None:
            first, last = (at, at) if first is None else (min(first, at), max(last, at))
            limits.check_seconds((last - first) * unit)
    end = (container.duration or 0) / av.time_base / (unit or 1)
    times = np.array(shown, np.int64)
    packets = np.argsort(times, kind="stable")
    keys = np.flatnonzero(np.array(key, bool)[packets])
    return PacketIndex(
        times=times[packets],
        packets=packets,
        keys=keys,
        starts=np.array(starts, np.int64)[packets[keys]],
        torn=torn,
        doubtful=doubtful
        or torn
        or not len(keys)
        or keys[0] != 0  # decoders drop what is shown before the first key frame
        or packets[0] != 0
        or bool((np.diff(packets[keys]) < 0).any())
        or bool((np.diff(times[packets]) == 0).any())
        or stream.frames not in (0, len(times)),
        lost=coverage.lost(container.size, end, stream.frames),
    )


def seek_frames(
    container: InputContainer, stream: VideoStream, index: PacketIndex, numbers: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames with those numbers (ascending, none twice) and their numbers.

    Each is decoded from the key frame at or before it, or by going on where that one has been read already.

    Raises:
        DoubtError: what is decoded is not what the index says.
    """
    if index.doubtful:
        raise DoubtError
    # Errors that decoders otherwise paint over, with what they saw before: something else after seeking.
    stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    waiting = list(reversed(numbers))
    while waiting:
        key = index.key_of(waiting[-1])
        container.seek(int(index.starts[key]), stream=stream)
        for number, read, frame in _frames_from(container, stream, index, int(index.keys[key])):
            if number == waiting[-1]:
                yield number, frame
                waiting.pop()
            if not waiting or index.packets[index.keys[index.key_of(waiting[-1])]] > read:
                break


def _frames_from(
    container: InputContainer, stream: VideoStream, index: PacketIndex, first: int
) -> Iterator[tuple[int, int, av.VideoFrame]]:
    """From the key frame `first` on, each frame's number and the last packet that was read for it."""
    expected = first
    for read, frames in _decode_from(container, stream, index, first):
        for frame in frames:
            number = index.number_of(frame.pts)
            # The container's word for a key frame is not enough: the decoder sees it in the frame.
            if number != expected or frame.is_corrupt or (number == first and not frame.key_frame):
                raise DoubtError
            yield number, read, frame
            expected += 1
    raise DoubtError  # the clip has ended, and frames are still waited for


def _decode_from(
    container: InputContainer, stream: VideoStream, index: PacketIndex, first_shown: int
) -> Iterator[tuple[int, list[av.VideoFrame]]]:
    """From a key frame's packet on, each packet's number and the frames that came out when it went in."""
    first, expected = int(index.packets[first_shown]), None
    for packet in container.demux(stream):
        if not packet.size:
            continue
        shown = index.number_of(packet.pts)
        number = int(index.packets[shown])
        if expected is None and number < first:
            continue  # seeking led to an earlier key frame
        if number != (first if expected is None else expected):
            raise DoubtError
        expected = number + 1
        # What is shown before the key frame and sent after it is made of what came before, and nothing of it.
        if shown >= first_shown:
            yield number, packet.decode()
    if expected is None:
        raise DoubtError
    yield expected - 1, stream.codec_context.decode(None)  # what the decoder still holds
