"""Video file → the middle frame of each of T equal intervals, as players show them (method: frame sampling).

Frames are decoded one after the other and only those wanted are kept, so memory does not grow with the clip.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from epalm.errors import MediaError
from epalm.extract.containers import open_container
from epalm.extract.image import MAX_PIXELS

Kept = TypeVar("Kept")


def middle_frames(total: int, wanted: int) -> list[int]:
    """Frame numbers of a clip of `total` frames: the middle of each of `wanted` equal intervals.

    A clip with fewer frames gives all of them, then its last one again.
    """
    if total < wanted:
        return [min(number, total - 1) for number in range(wanted)]
    return [(2 * interval + 1) * total // (2 * wanted) for interval in range(wanted)]


def read_frames(path: Path, wanted: int, keep: Callable[[np.ndarray], Kept]) -> list[Kept]:
    """`keep` of each of `wanted` frames (H, W, 3) uint8, rotated as the file says.

    Raises:
        MediaError: no video, no video stream, damaged, or a frame with more than `MAX_PIXELS`.
    """
    counted = _count(path)
    kept, decoded = _decode(path, middle_frames(counted, wanted), keep)
    if decoded != counted and decoded:
        # What the container lists and what comes out may differ (edit lists, dropped frames).
        kept, _ = _decode(path, middle_frames(decoded, wanted), keep)
    if not decoded:
        raise MediaError("the video has no frame", hint="check the file with a media player")
    return kept


def _count(path: Path) -> int:
    """How many frames the container says it has, or else its packets: one reading, nothing decoded."""
    with open_container(path, "video") as container:
        stream = _video_stream(container)
        return stream.frames or max(1, sum(packet.size > 0 for packet in container.demux(stream)))


def _decode(path: Path, numbers: list[int], keep: Callable[[np.ndarray], Kept]) -> tuple[list[Kept], int]:
    """What was kept of the frames with those numbers (ascending), and how many frames there are."""
    kept: list[Kept] = []
    decoded = 0
    with open_container(path, "video") as container:
        stream = _video_stream(container)
        stream.codec_context.thread_count = 1  # several files are decoded at once instead
        for frame in container.decode(stream):
            if decoded == numbers[min(len(kept), len(numbers) - 1)] and len(kept) < len(numbers):
                chosen = keep(_pixels(frame))
                kept += [chosen] * numbers.count(decoded)
            decoded += 1
    return kept, decoded


def _video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > MAX_PIXELS:
                raise MediaError(f"the frames have {width}×{height} pixels", hint="scale the video down")
            return stream
    raise MediaError("the file has no video stream", hint="use --modality audio for sound files")


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    """RGB (H, W, 3) uint8; the display matrix's rotation is counterclockwise, as is numpy's."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
