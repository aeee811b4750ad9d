"""What JSON of a cache may hold: specs and records with fields of the kinds that this program writes.

Somebody else may have written it, in another cache or in a file: nothing is taken over that makes no sense.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

# What reading JSON and taking its value apart may raise; pydantic's error is a ValueError, and so is that of JSON.
NOT_AS_WRITTEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_MOST = 1 << 20  # layers, width, views: no encoder comes near, and products stay far from overflowing


def _ascending(numbers: list[int]) -> list[int]:
    if numbers != sorted(set(numbers)):
        raise ValueError("they are not in order, each once")
    return numbers


def _each_once(texts: list[str]) -> list[str]:
    if len(set(texts)) < len(texts):
        raise ValueError("one is there twice")
    return texts


_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Positive = Annotated[int, Field(ge=1, le=_MOST)]
Numbers = Annotated[list[_Count], Field(min_length=1), FailFast(), AfterValidator(_ascending)]
_Rows = Annotated[list[str], Field(min_length=1), FailFast(), AfterValidator(_each_once)]


class SpecFields(BaseModel):
    """`spec.json`, every field of the kind that an extraction writes."""

    model_config = ConfigDict(strict=True, extra="forbid")

    modality: Literal["image", "video", "audio"]
    encoder: dict[str, Any]
    layers: Numbers
    width: _Positive
    preprocessing: dict[str, Any]
    augmentation: dict[str, Any] | None
    compute: dict[str, Any]
    stored_dtype: Literal["float16", "float32"]
    version: _Count
    tokens: _Positive = 1


class RecordFields(BaseModel):
    """A record's JSON, every field of the kind that this program writes."""

    model_config = ConfigDict(strict=True, extra="forbid")

    block: str
    folder: Annotated[str, Field(pattern="^[0-9a-f]{16}-[0-9a-f]{8}$")]
    rows: _Rows
    views: Numbers
    shape: list[_Positive]
    dtype: Literal["float16", "float32"]
    bytes: Annotated[int, Field(le=1 << 50)]
    checksum: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    written: dict[str, Any]
    format: Literal[1, 2]


def fault_in_words(error: Exception) -> str:
    """What is wrong, on one short line."""
    return " ".join(str(error).split(" [type=")[0].split())[:200] or type(error).__name__
