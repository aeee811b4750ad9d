"""What JSON of a cache may hold: specs and records with fields of the kinds that this program writes.

Somebody else may have written it, in another cache or in a file: nothing is taken over that makes no sense.
"""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, FailFast, Field

# What reading JSON and taking its value apart may raise; pydantic's error is a ValueError, and so is that of JSON.
NOT_AS_WRITTEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_MOST = 1 << 20  # layers, width, views: no encoder comes near, and products stay far from overflowing


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("they are not in order, each once")
    return numbers


def _each_once(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(texts)) < len(texts):
        raise ValueError("one is there twice")
    return texts


Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=_MOST)]
Bytes = Annotated[int, Field(strict=True, ge=0, le=1 << 50)]
Numbers = Annotated[tuple[Count, ...], Field(min_length=1), FailFast(), AfterValidator(_ascending)]
Rows = Annotated[tuple[str, ...], Field(min_length=1), FailFast(), AfterValidator(_each_once)]
Shape = tuple[Positive, Positive, Positive, Positive, Positive]
MediaKind = Annotated[str, Field(pattern="^(image|video|audio)$")]
Dtype = Annotated[str, Field(pattern="^float(16|32)$")]
Format = Annotated[int, Field(strict=True, ge=1, le=2)]
Checksum = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Folder = Annotated[str, Field(pattern="^[0-9a-f]{16}-[0-9a-f]{8}$")]
NO_OTHERS = ConfigDict(extra="forbid")  # fields than those that the class has


def fault_in_words(error: Exception) -> str:
    """What is wrong, on one short line."""
    return " ".join(str(error).split(" [type=")[0].split())[:200] or type(error).__name__
