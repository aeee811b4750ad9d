"""Whether features are of the encoder that a recipe counts on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epalm.settings import EncoderSettings


def differences(wanted: "EncoderSettings", told: Mapping[str, Any]) -> list[str]:
    """In what features, as they describe themselves, are not those that a recipe's figures are for."""
    read = told["preprocessing"]
    size = read.get("size")
    there = {
        "encoder": (wanted.kind, told["encoder"].get("kind")),
        "frames": (wanted.frames, read.get("frames") if read.get("medium") == "video" else None),
        "size": (wanted.size and [wanted.size, wanted.size], list(size) if size else None),
    }
    return [
        f"the recipe is for {_value(asked)} as {name}, the features have {_value(found)}"
        for name, (asked, found) in there.items()
        if asked is not None and found is not None and asked != found
    ]


def _value(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, list) else str(value)
