"""Video file → the frames wanted of it, as players show them (method: frame sampling).

Frames are handed on one after the other and none is kept, so memory does not grow with the clip. Does not know
what becomes of a frame.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.stream import VideoStream

from epalm.errors import MediaError
from epalm.extract.media.containers import open_container
from epalm.extract.media.image import UPRIGHT, of_display_matrix, turned
from epalm.extract.media.limits import Limits, warn_about
from epalm.extract.media.packets import DoubtError, PacketIndex, index_packets, seek_frames, unreachable_bytes
from epalm.media import MediaFile

Kept = TypeVar("Kept")
Choose = Callable[[int], list[list[int]]]


def _unnamed(kind: type[Type], number: int) -> Type:
    """A kind of side data that PyAV has no name for, such as EXIF, in whose presence it would list no other."""
    member = object.__new__(kind)
    member._name_, member._value_ = str(number), number  # type: ignore[assignment]
    return member


Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment]


def middle_frames(total: int, wanted: int) -> list[int]:
    """Frame numbers of a clip of `total` frames: the middle of each of `wanted` equal intervals.

    A clip with fewer frames gives all of them, then its last one again.
    """
    if total < wanted:
        return [min(number, total - 1) for number in range(wanted)]
    return [(2 * interval + 1) * total // (2 * wanted) for interval in range(wanted)]


def random_frames(total: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """Frame numbers of a clip of `total` frames: one of each of `wanted` equal intervals, each equally likely.

    A clip with fewer frames gives all of them, then its last one again.
    """
    if total < wanted:
        return middle_frames(total, wanted)
    bounds = pairwise(interval * total // wanted for interval in range(wanted + 1))
    ats = rng.random(wanted).tolist()
    return [min(low + int(at * (high - low)), high - 1) for at, (low, high) in zip(ats, bounds, strict=True)]


def read_frames(
    medium: MediaFile, choose: Choose, keep: Callable[[int, np.ndarray], Kept], limits: Limits
) -> list[list[Kept]]:
    """Several selections of a clip's frames in one pass over it.

    `choose(total)` gives, for a clip of `total` frames, the frame numbers of each selection in ascending order;
    `keep(selection, frame)` makes of a frame (H, W, 3) uint8, turned as the file says, what the selection with that
    number keeps of it. Both may be called anew, from the beginning, when the clip is not what it says. Of a clip with
    holes, the frames that decode are those there are, and `warn_about` is told. Raises MediaError: no video, no video
    stream, nothing that decodes, cut off, or beyond the limits.
    """
    with open_container(medium, "video", limits) as (container, stream):
        index = index_packets(container, stream, limits)
        total = len(index.times)  # of packets with content: of frames, unless some are hidden or dropped
        selections = choose(max(1, total))
        wanted = sorted({number for numbers in selections for number in numbers})
        try:
            kept, _ = _collect(seek_frames(container, stream, index, wanted), selections, keep)
            _warn(medium, index, _Damage(), total)
            return kept
        except DoubtError:
            torn = index.torn  # decoding all of it shows what there is
        except av.FFmpegError:
            torn = True
    for _ in range(2):  # what is listed and what comes out may differ (edit lists, hidden and dropped frames)
        selections, damage = choose(max(1, total)), _Damage()
        with open_container(medium, "video", limits) as (container, stream):
            kept, decoded = _collect(_decoded(container, stream, limits, damage), selections, keep)
        if decoded in (0, total):
            break
        total = decoded
    if not decoded:
        raise MediaError("the video has no frame", hint="check the file with a media player")
    # Decoders patch small errors without a word, unless they are told to refuse what has any.
    damage.patched += torn and not (damage.patched or damage.failed)
    _warn(medium, index, damage, decoded)
    return kept


@dataclass
class _Damage:
    """What decoding a clip from its beginning has met with, from the first key frame on."""

    read: int = 0  # packets
    failed: int = 0  # of these, that gave an error
    patched: int = 0  # frames of which the decoder has made up a part


def _warn(medium: MediaFile, index: PacketIndex, damage: _Damage, decoded: int) -> None:
    hint = "play it with a media player, and download or copy it again"
    # A decoder may pass over more than it complains of.
    missing = index.lost + (max(damage.failed, damage.read - decoded) if damage.failed else 0)
    if missing:
        warn_about(f"it has holes: it announces about {decoded + missing:,} frames, and {decoded:,} decode", hint)
    with medium.open() as file:
        unreachable = unreachable_bytes(file)
    if unreachable:
        warn_about(f"it has holes: {unreachable:,} of its bytes lie behind a part in which no fragment begins", hint)
    if damage.patched:
        warn_about(f"it is damaged inside: of {decoded:,} frames, {damage.patched:,} or more decode in part", hint)


def _decoded(
    container: InputContainer, stream: VideoStream, limits: Limits, damage: _Damage
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames and their numbers. Raises FFmpegError when there is none for a fault."""
    count, fault, begun, first_key = 0, None, False, 0
    for packet in container.demux(stream):  # an empty packet at the end has the decoder give out what it still holds
        if not packet.size and packet.dts is not None:
            continue
        if packet.is_keyframe and packet.size and not begun:
            begun, first_key = True, packet.pts or 0
        damage.read += begun and packet.size > 0
        try:
            frames = packet.decode()
        except MemoryError:  # FFmpeg's is one, too
            raise
        except av.FFmpegError as error:
            fault = error
            damage.failed += begun
            continue
        for frame in frames:
            limits.check("frames", count + 1)
            # A recording that begins between two key frames has none of what its first frames build on.
            damage.patched += frame.is_corrupt and begun and (frame.pts is None or frame.pts >= first_key)
            yield count, frame
            count += 1
    if fault and not count:
        raise fault


def _collect(
    frames: Iterable[tuple[int, av.VideoFrame]], selections: list[list[int]], keep: Callable[[int, np.ndarray], Kept]
) -> tuple[list[list[Kept]], int]:
    """What was kept for each selection of the frames there are, and the number after the last frame."""
    kept: list[list[Kept]] = [[] for _ in selections]
    end = 0
    for number, frame in frames:
        end = number + 1
        takers = [place for place, numbers in enumerate(selections) if number in numbers]
        if takers:
            pixels = _pixels(frame)
            for place in takers:
                kept[place] += [keep(place, pixels)] * selections[place].count(number)
    return kept, end


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    """RGB (H, W, 3) uint8, turned and mirrored as the display matrix says, or as stored where it says nothing sound."""
    # Threads of the conversion would live until the collector finds the frame, which its side data hold in a circle.
    pixels = frame.to_ndarray(format="rgb24", threads=1)
    side_data = cast(SideDataContainer, frame.side_data)
    if Type.DISPLAYMATRIX not in side_data:
        return pixels
    matrix = np.frombuffer(bytes(side_data[Type.DISPLAYMATRIX]), np.int32)
    orientation = of_display_matrix(matrix)
    if orientation is None and matrix[[0, 1, 3, 4]].any():
        warn_about(
            "its display matrix neither turns by a multiple of 90° nor mirrors: the frames are taken as stored",
            hint="convert the clip, so that its frames are stored as they are to be shown",
        )
    return turned(pixels, orientation or UPRIGHT)
