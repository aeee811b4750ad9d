"""How many frames of a clip were lost with stretches of its file that hold no packet: zeroed, overwritten, swapped.

A long time between two frames is no sign of loss by itself: recordings of screens and slide shows have such. It is one
where the file has bytes there that no packet of any stream accounts for, or where the container says that a packet is
damaged, as MPEG-TS does. MP4 and MOV list every packet, unless they are fragmented. Knows positions and times; decodes
nothing.
"""

import os
from array import array
from typing import Any, BinaryIO

import numpy as np
from av.packet import Packet

from epalm.extract.media.chunks import BOXES, walk

_LEAST_LOST = 2  # frames
_LEAST_BYTES = 128  # of a stretch; containers put less between two packets
_BYTES_A_FRAME = 24  # that a lost one took at least: containers may have an empty entry for one shown again
_SHARE = 0.1  # of the usual frame's bytes that each lost one took
_COUNTING = {"avi", "ogg"}  # whose times go on behind a hole as if there were none
_MOST_BOXES = 100_000
_UNKNOWN = -(1 << 63)  # time
_INDEX_ENTRY = 32  # bytes that an index at the end of the file takes for a packet from which decoding can begin
_NEIGHBOURS = 8  # packets: those of neighbouring frames lie so near to each other in the file
# And bytes that lie between two packets of a whole file: ASF interleaves their parts.
_CONTAINERS = {"matroska,webm": 0, "flv": 0, "nut": 0, "avi": 0, "ogg": 0, "mpeg": 0, "asf": 1 << 12}
_FILLED = {"mpegts": 1 << 62}  # bytes between packets may be filling, as many as it takes to be sent at a constant rate


class Coverage:
    """The stretches of a file that its packets cover, and the times of the clip's own."""

    def __init__(self, container: str) -> None:
        self._between, self._container = (_CONTAINERS | _FILLED).get(container), container
        self._begins, self._ends, self._keys = array("q"), array("q"), 0
        self._corrupt = array("q")
        self._shown, self._sent, self._places, self._sizes = (array("q") for _ in range(4))

    def add(self, packet: "Packet[Any]", *, mine: bool) -> None:
        """A packet, of the clip or of another stream."""
        if self._between is None or (not packet.size and packet.dts is None):  # the last one tells the end
            return
        position, size = packet.pos, packet.size
        if position is None:  # it goes on where the one before has ended
            position = self._ends[-1] if self._ends else 0
        if packet.is_corrupt:
            self._corrupt.append(position)
        self._begins.append(position)
        self._ends.append(position + size)
        self._keys += packet.is_keyframe
        if mine:
            self._shown.append(_UNKNOWN if packet.pts is None else packet.pts)
            self._sent.append(_UNKNOWN if packet.dts is None else packet.dts)
            self._places.append(position)
            self._sizes.append(size)

    def lost(self, file_size: int, end: float, announced: int) -> int:
        """How many frames lack.

        `end` is when the clip ends as its header says, in the unit of the times; `announced` is how many frames it has
        as AVI's header says, whose times count what is there.
        """
        if self._between is None or len(self._shown) <= _LEAST_LOST:
            return 0
        order = np.argsort(_values(self._begins), kind="stable")
        begins, ends = _values(self._begins)[order], np.maximum.accumulate(_values(self._ends)[order])
        bare = begins[1:] - ends[:-1]
        holes = np.flatnonzero(bare >= _LEAST_BYTES + self._between)
        corrupt = _values(self._corrupt)
        times = _values(self._shown)
        if (times == _UNKNOWN).any():  # MPEG has the times of some
            times = _values(self._sent)
        if (times == _UNKNOWN).any():
            return 0
        order = np.argsort(times, kind="stable")
        times, places = times[order], _values(self._places)[order]
        last = int(places[-_NEIGHBOURS:].max())
        index = _INDEX_ENTRY * self._keys
        if self._container == "avi":
            times, end, index = np.arange(len(times)), announced, _INDEX_ENTRY * max(announced, len(begins))
        if self._container in _COUNTING:
            last = -1
        usual = max(1.0, float(np.median(np.diff(times))))
        frame = max(_BYTES_A_FRAME, _SHARE * float(np.median(_values(self._sizes))))
        gaps = np.rint(np.diff(times) / usual).astype(np.int64) - 1
        lost = 0
        for gap in np.flatnonzero(gaps >= _LEAST_LOST).tolist():
            near = places[max(0, gap - _NEIGHBOURS) : gap + 2 + _NEIGHBOURS]
            low, high = int(near.min()), int(near.max())
            inside = holes[(begins[holes + 1] > low) & (ends[holes] <= high)]
            if bare[inside].sum() >= frame * gaps[gap] or ((corrupt >= low) & (corrupt <= high)).any():
                lost += int(gaps[gap])
        behind = round((end - times[-1]) / usual) - 1
        tail = file_size - int(ends[-1]) - index - self._between
        left = max(0, tail) + int(bare[holes[begins[holes + 1] > last]].sum())
        return lost + (behind if behind >= _LEAST_LOST and left >= max(_LEAST_BYTES, frame * behind) else 0)


def unreachable_bytes(file: BinaryIO) -> int:
    """Of a fragmented MP4, how many bytes lie behind a place where a box should begin and none does.

    0 where only zeros follow: recorders reserve room.
    """
    size, fragments = file.seek(0, os.SEEK_END), False
    for box in walk(file, BOXES, size, most=_MOST_BOXES):
        if not box.name.isalnum():
            file.seek(box.place)
            blocks = iter(lambda: file.read(1 << 20), b"")
            return size - box.place if fragments and any(block.strip(b"\0") for block in blocks) else 0
        fragments |= box.name == b"moof"
    return 0


def _values(numbers: "array[int]") -> np.ndarray:
    return np.frombuffer(numbers, np.int64)
