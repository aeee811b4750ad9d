"""How much of a machine one medium may take, so that no file stops an extraction; and warnings of those that are odd.

Every limit is checked before the step that would be expensive. What a file says of itself is not believed: the
same limits hold again while it is decoded. Knows figures; knows no format.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from epalm.errors import MediaError
from epalm.media import MediaFile, Status
from epalm.request_fields import option

PANEL = "Limits of one medium"  # of options
# A picture at the limit of its format was measured to need 4 to 14 bytes a pixel while it is decoded.
_BYTES_A_PIXEL = 15
_EXCESS = {
    "bytes": "the medium has {:,} bytes: more than {:,}",
    "frames": "the video has {:,} frames or more: more than {:,}",
    "seconds": "the medium lasts {:,.0f} s or more: more than {:,.0f} s",
}
OR_RAISE = ", or raise --"  # as hints name the option of `epalm extract` that admits a medium
_LEAST_MEMORY = 1024**3  # of which torch, that a filter bank is made with, was measured to take 0.7


@dataclass(frozen=True)
class Limits:
    """The most that one medium may have; media beyond are refused, each with the option that admits it.

    With the defaults no decoding process was seen above 1.8 GB, whatever it was given.
    """

    # A video's frame may have a third of a picture's pixels, as decoders keep up to seventeen frames.
    max_pixels: int = option("Pixels of a picture.", 100_000_000, minimum=1, panel=PANEL)
    max_frames: int = option("Frames of a clip.", 1_000_000, minimum=1, panel=PANEL)
    max_seconds: float = option("Seconds of a clip or a recording.", 21_600.0, minimum=0.001, panel=PANEL)
    max_bytes: int = option("Bytes of a file.", 16 << 30, minimum=1, panel=PANEL)
    strict_media: bool = option("Media that decode with a warning count as bad.", False)

    @property
    def memory(self) -> int:
        """How many bytes a decoding process may take beyond those it has at its start.

        The checks bound what decoders are known to take. Refusing a process more than this bounds what some file
        makes them take all the same.
        """
        return max(_LEAST_MEMORY, _BYTES_A_PIXEL * self.max_pixels)

    def check(self, of: Literal["bytes", "frames", "seconds"], value: float) -> None:
        """Raises MediaError when the value is more than the limit `of` that name."""
        most = getattr(self, f"max_{of}")
        if value > most:
            raise MediaError(_EXCESS[of].format(value, most), hint=f"shorten it{OR_RAISE}max-{of}")

    def check_pixels(self, width: int, height: int, *, share: int = 1, of: str = "a picture") -> None:
        """For media whose decoders need `share` times as much memory per pixel; `of` names them. Raises MediaError."""
        most = self.max_pixels // share
        if width * height > most:
            note = f", of which {of} may have 1/{share}" if share > 1 else ""
            fault = f"{width}×{height} pixels, {width * height:,} in all: more than {most:,} for {of}"
            raise MediaError(fault, hint=f"scale it down{OR_RAISE}max-pixels{note}")


def require_status(medium: MediaFile, limits: Limits | None = None) -> Status:
    """What `MediaFile.status` gives of a regular file that is not empty and [default: whatever its size] within limits.

    Devices, pipes and folders are refused: a data file may name anything, and reading some never ends. Raises
    MediaError: missing, empty, unreadable, not a regular file, too large, or beyond the end of its shard.
    """
    try:
        status = medium.path.stat()
    except FileNotFoundError:
        raise MediaError("the file does not exist", hint="check the path in the data file") from None
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror}", hint="check its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("this is not a regular file", hint="name a media file")
    size = status.st_size if medium.size is None else medium.size
    if size == 0:
        raise MediaError("the file is empty", hint="download or copy it again")
    if medium.offset + size > status.st_size:
        fault = f"the shard ends at byte {status.st_size:,}, before the medium does at {medium.offset + size:,}"
        raise MediaError(fault, hint="download or copy the shard again")
    if limits:
        limits.check("bytes", size)
    return Status(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def out_of_memory(what: str) -> MediaError:
    """For decoders that were refused memory."""
    return MediaError(
        f"decoding the {what} takes more memory than a decoding process may have",
        hint=f"convert it to a common format{OR_RAISE}max-pixels, with which the memory grows",
    )


def without_option(hint: str | None) -> str | None:
    """The hint of a fault, for a command that has no options for limits."""
    return hint and hint.partition(OR_RAISE)[0]


@dataclass(frozen=True, slots=True)
class MediaWarning:
    """What is odd about a medium, in one line, and what can be done."""

    message: str
    hint: str | None = None


_COLLECTED: ContextVar[list[MediaWarning] | None] = ContextVar("media_warnings", default=None)


def warn_about(message: str, hint: str | None = None) -> None:
    """Note this of the medium that is being decoded, once; does nothing outside of `collected_warnings`."""
    collected, warning = _COLLECTED.get(), MediaWarning(message, hint)
    if collected is not None and warning not in collected:
        collected.append(warning)


@contextmanager
def collected_warnings() -> Iterator[list[MediaWarning]]:
    """The list that grows by what `warn_about` is called with inside the `with` block."""
    warnings: list[MediaWarning] = []
    token = _COLLECTED.set(warnings)
    try:
        yield warnings
    finally:
        _COLLECTED.reset(token)


def joined(warnings: list[MediaWarning]) -> MediaWarning | None:
    """All of them as one; None when there is none."""
    if not warnings:
        return None
    hints = dict.fromkeys(warning.hint for warning in warnings if warning.hint)
    return MediaWarning("; ".join(warning.message for warning in warnings), "; ".join(hints) or None)
