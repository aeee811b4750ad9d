"""The packets of a clip, listed without decoding: which frames there are, where to seek for them, and which were lost.

Where anything about the clip is doubtful seeking raises `DoubtError`, and the caller decodes from the beginning
instead: what is found here are the very frames that decoding all of the clip gives. One thing differs: of damage in a
part of the clip that no frame is wanted from, only packets that were lost or zeroed are noticed.

A long time between two frames is no sign of loss by itself: recordings of screens and slide shows have such. It is one
where the file has bytes there that no packet of any stream accounts for, or where the container says that a packet is
damaged, as MPEG-TS does. MP4 and MOV list every packet, unless they are fragmented.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from epalm.extract.media.chunks import BOXES, walk
from epalm.extract.media.limits import Limits

# Containers that store the time of every frame; codecs of which a packet is one frame (VP8 hides some in packets
# of their own), which need nothing of what lies before a key frame, and whose decoders tell one by its content.
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_CODECS = {"h264", "hevc", "vp9", "av1"}
_ZEROS = bytes(64)  # no packet of these codecs holds so many in a row, unless a part of the file was never written
# Containers in which lost packets are looked for, and bytes that lie between two packets of a whole file: ASF
# interleaves their parts, MPEG-TS is filled up to be sent at a constant rate.
_BETWEEN = {
    "matroska,webm": 0, "flv": 0, "nut": 0, "avi": 0, "ogg": 0, "mpeg": 0, "asf": 1 << 12, "mpegts": 1 << 62,
}  # fmt: skip
_COUNTING = {"avi", "ogg"}  # whose times go on behind a hole as if there were none
_UNKNOWN = -(1 << 63)  # time
_LEAST_LOST = 2  # frames
_LEAST_BYTES = 128  # of a stretch; containers put less between two packets
_BYTES_A_FRAME, _SHARE = 24, 0.1  # of a lost one at least: empty ones are shown again; and of the usual frame's
_INDEX_ENTRY = 32  # bytes that an index at the end of the file takes for a packet from which decoding can begin
_NEIGHBOURS = 8  # packets: those of neighbouring frames lie so near to each other in the file


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

    def number_of(self, time: int | None) -> int:
        """The number of the frame that is shown at that time. Raises DoubtError when there is none."""
        number = int(np.searchsorted(self.times, -1 if time is None else time))
        if time is None or number == len(self.times) or self.times[number] != time:
            raise DoubtError
        return number

    def key_of(self, number: int) -> int:
        """Which of the key frames is the last one at or before that frame."""
        return int(np.searchsorted(self.keys, number, side="right")) - 1


def index_packets(container: InputContainer, stream: VideoStream, limits: Limits) -> PacketIndex:
    """Read the clip once without decoding it. Raises MediaError: more frames or seconds than the limits allow."""
    sought = container.format.name in _CONTAINERS and stream.codec_context.codec.canonical_name in _CODECS
    unit = float(stream.time_base or 0)
    # Of each packet in the file's order: whether it is of the clip, its place and bytes, when it is shown and sent,
    # whether it is a key frame, damaged, and cut away by an edit list: decoded and not shown. An array, as tuples would
    # take ten times the memory.
    table, count, end, torn = array("q"), 0, 0, False
    for packet in container.demux():
        of_clip, size = packet.stream_index == stream.index, packet.size
        if not size and packet.dts is None:  # the last one tells the end
            continue
        place = end if packet.pos is None else packet.pos  # without one it goes on where the one before has ended
        end = place + size
        times = [_UNKNOWN if time is None else time for time in (packet.pts, packet.dts)]
        table.extend((of_clip, place, size, *times, packet.is_keyframe, packet.is_corrupt, packet.is_discard))
        if of_clip and size:
            count += 1
            limits.check("frames", count)
            torn = torn or (sought and _ZEROS in bytes(packet))
    rows = np.frombuffer(table, np.int64).reshape(-1, 8)
    _, _, _, shown, sent, key, corrupt, discarded = rows[(rows[:, 0] == 1) & (rows[:, 2] > 0)].T
    has_time = shown != _UNKNOWN
    times = np.where(has_time, shown, sent)
    times = times[times != _UNKNOWN]
    limits.check("seconds", float(np.ptp(times)) * unit if len(times) else 0)
    announced_end = (container.duration or 0) / av.time_base / (unit or 1)
    lost = _lost_frames(rows, container.format.name, container.size, announced_end, stream.frames)
    shown = np.where(has_time, shown, 0)
    starts = np.where(sent == _UNKNOWN, shown, np.minimum(shown, sent))
    packets = np.argsort(shown, kind="stable")
    keys = np.flatnonzero(key[packets])
    in_order = len(keys) > 0 and keys[0] == 0 and packets[0] == 0  # decoders drop what is shown before the first key
    in_order = in_order and not (np.diff(packets[keys]) < 0).any() and not (np.diff(shown[packets]) == 0).any()
    sound = has_time.all() and not (corrupt | discarded).any() and stream.frames in (0, count)
    return PacketIndex(
        times=shown[packets],
        packets=packets,
        keys=keys,
        starts=starts[packets[keys]],
        doubtful=not (sought and sound and in_order) or torn,
        torn=torn,
        lost=lost,
    )


def _lost_frames(rows: np.ndarray, container: str, file_size: int, end: float, announced: int) -> int:
    """How many frames lack, by the table of packets.

    `end` is when the clip ends as its header says, in the unit of the times; `announced` is how many frames it has
    as AVI's header says, whose times count what is there.
    """
    between = _BETWEEN.get(container)
    _, places, clip_sizes, times, sent, *_ = rows[rows[:, 0] == 1].T
    times = sent if (times == _UNKNOWN).any() else times  # MPEG has the times of some
    if between is None or len(times) <= _LEAST_LOST or (times == _UNKNOWN).any():
        return 0
    _, begins, sizes, _, _, is_key, is_corrupt, _ = rows[np.argsort(rows[:, 1], kind="stable")].T
    corrupt, ends = begins[is_corrupt == 1], np.maximum.accumulate(begins + sizes)
    bare = begins[1:] - ends[:-1]
    holes = np.flatnonzero(bare >= _LEAST_BYTES + between)
    order = np.argsort(times, kind="stable")
    times, places = times[order], places[order]
    last, index = int(places[-_NEIGHBOURS:].max()), _INDEX_ENTRY * int(is_key.sum())
    if container == "avi":
        times, end, index = np.arange(len(times)), announced, _INDEX_ENTRY * max(announced, len(begins))
    if container in _COUNTING:
        last = -1
    usual = max(1.0, float(np.median(np.diff(times))))
    frame = max(_BYTES_A_FRAME, _SHARE * float(np.median(clip_sizes)))
    gaps = np.rint(np.diff(times) / usual).astype(np.int64) - 1
    lost = 0
    for gap in np.flatnonzero(gaps >= _LEAST_LOST).tolist():
        near = places[max(0, gap - _NEIGHBOURS) : gap + 2 + _NEIGHBOURS]
        low, high = near.min(), near.max()
        inside = holes[(begins[holes + 1] > low) & (ends[holes] <= high)]
        if bare[inside].sum() >= frame * gaps[gap] or ((corrupt >= low) & (corrupt <= high)).any():
            lost += int(gaps[gap])
    behind = round((end - times[-1]) / usual) - 1
    left = max(0, file_size - int(ends[-1]) - index - between) + int(bare[holes[begins[holes + 1] > last]].sum())
    return lost + (behind if behind >= _LEAST_LOST and left >= max(_LEAST_BYTES, frame * behind) else 0)


def unreachable_bytes(file: BinaryIO) -> int:
    """Of a fragmented MP4, how many bytes lie behind a place where a box should begin and none does.

    0 where only zeros follow: recorders reserve room.
    """
    size, fragments = file.seek(0, os.SEEK_END), False
    for box in walk(file, BOXES, size):
        if not box.name.isalnum():
            file.seek(box.place)
            blocks = iter(lambda: file.read(1 << 20), b"")
            return size - box.place if fragments and any(block.strip(b"\0") for block in blocks) else 0
        fragments |= box.name == b"moof"
    return 0


def seek_frames(
    container: InputContainer, stream: VideoStream, index: PacketIndex, numbers: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames with those numbers (ascending, none twice) and their numbers.

    Each is decoded from the key frame at or before it, or by going on where that one has been read already. Raises
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
        expected = first = int(index.keys[key])
        for read, frame in _decode_from(container, stream, index, first):
            number = index.number_of(frame.pts)
            # The container's word for a key frame is not enough: the decoder sees it in the frame.
            if number != expected or frame.is_corrupt or (number == first and not frame.key_frame):
                raise DoubtError
            expected += 1
            if number == waiting[-1]:
                yield number, frame
                waiting.pop()
            if not waiting or index.packets[index.keys[index.key_of(waiting[-1])]] > read:
                break
        else:
            raise DoubtError  # the clip has ended, and frames are still waited for


def _decode_from(
    container: InputContainer, stream: VideoStream, index: PacketIndex, first_shown: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """From a key frame's packet on, each frame, and the number of the packet at whose going in it came out."""
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
            yield from ((number, frame) for frame in packet.decode())
    if expected is None:
        raise DoubtError
    yield from ((expected - 1, frame) for frame in stream.codec_context.decode(None))  # what it still holds
