"""What decoders have to say of a medium that gets its row all the same. Knows no medium and no decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


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
