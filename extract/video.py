"""Video file → the frames wanted of it, as players show them (method: frame sampling).

Frames are handed on one after the other and none is kept, so memory does not grow with the clip. Does not know
what becomes of a frame.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer, Type
from av.stream import Disposition
from av.video.stream import VideoStream

from epalm.errors import MediaError
from epalm.extract.containers import VIDEO_SHARE, decode_all, open_container
from epalm.extract.limits import Limits
from epalm.extract.media_warnings import warn_about
from epalm.extract.orientation import TURNS, UPRIGHT, of_display_matrix
from epalm.extract.packets import DoubtError, index_packets, seek_frames
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
    bounds = [interval * total // wanted for interval in range(wanted + 1)]
    ats = rng.random(wanted).tolist()
    return [
        min(low + int(at * (high - low)), high - 1) for at, low, high in zip(ats, bounds[:-1], bounds[1:], strict=True)
    ]


def read_frames(
    medium: MediaFile, choose: Choose, keep: Callable[[int, np.ndarray], Kept], limits: Limits
) -> list[list[Kept]]:
    """Several selections of a clip's frames in one pass over it.

    `choose(total)` gives, for a clip of `total` frames, the frame numbers of each selection in ascending order;
    `keep(selection, frame)` makes of a frame (H, W, 3) uint8, turned as the file says, what the selection with that
    number keeps of it. Both may be called anew, from the beginning, when the clip is not what it says.

    Raises:
        MediaError: no video, no video stream, damaged, cut off, or beyond the limits.
    """
    with open_container(medium, "video", limits) as container:
        stream = _video_stream(container, limits)
        index = index_packets(container, stream, limits)
        selections = choose(max(1, index.count))
        wanted = sorted({number for numbers in selections for number in numbers})
        try:
            kept, _ = _collect(seek_frames(container, stream, index, wanted), selections, keep)
            return kept
        except (DoubtError, av.FFmpegError):
            pass  # decoding all of it shows whether the clip or the index is at fault
    kept, decoded = _from_the_beginning(medium, choose(max(1, index.count)), keep, limits)
    if decoded != index.count and decoded:
        # What the container lists and what comes out may differ (edit lists, hidden and dropped frames).
        kept, _ = _from_the_beginning(medium, choose(decoded), keep, limits)
    if not decoded:
        raise MediaError("the video has no frame", hint="check the file with a media player")
    return kept


def _from_the_beginning(
    medium: MediaFile, selections: list[list[int]], keep: Callable[[int, np.ndarray], Kept], limits: Limits
) -> tuple[list[list[Kept]], int]:
    with open_container(medium, "video", limits) as container:
        stream = _video_stream(container, limits)
        return _collect(_numbered(decode_all(container, stream), limits), selections, keep)


def _numbered(frames: Iterable[av.VideoFrame], limits: Limits) -> Iterator[tuple[int, av.VideoFrame]]:
    for number, frame in enumerate(frames):
        limits.check_frames(number + 1)
        yield number, frame


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


def _video_stream(container: InputContainer, limits: Limits) -> VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise MediaError("the video's codec is not known", hint="convert it, for example to H.264")
            width, height = stream.codec_context.width, stream.codec_context.height
            limits.check_pixels(width, height, share=VIDEO_SHARE, of="video frames")
            stream.codec_context.thread_count = 1  # several files are decoded at once instead
            return stream
    raise MediaError("the file has no video stream", hint="use --modality audio for sound files")


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    """RGB (H, W, 3) uint8, turned and mirrored as the display matrix says, or as stored where it says nothing sound."""
    pixels = frame.to_ndarray(format="rgb24")
    side_data = cast(SideDataContainer, frame.side_data)
    if Type.DISPLAYMATRIX not in side_data:
        return pixels
    matrix = np.frombuffer(bytes(side_data[Type.DISPLAYMATRIX]), np.int32)
    orientation = of_display_matrix(matrix)
    if orientation is None and matrix.any():
        warn_about(
            "its display matrix neither turns by a multiple of 90° nor mirrors: the frames are taken as stored",
            hint="convert the clip, so that its frames are stored as they are to be shown",
        )
    turn, _ = TURNS[orientation or UPRIGHT]
    return turn(pixels)
