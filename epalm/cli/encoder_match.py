"""Whether features are of the encoder that a run was trained with, and of the one that a recipe counts on."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.settings import EncoderSettings
    from epalm.train.data.features import CachedFeatures
    from epalm.train.runs.loading import LoadedRun


def require_same_weights(run: "LoadedRun", features: "CachedFeatures") -> None:
    """That other features than a run's own are of the encoder that it knows, on whatever media.

    A TimeSformer with and without temporal attention is one encoder when both were loaded from the same place: the
    second has fewer tensors, so digests cannot tell.

    Raises:
        UsageError: they are of another encoder.
    """
    ours, theirs = run.inputs["features"], features.describe()
    from epalm.extract.encoders.registry import family

    same = ours["encoder"] == theirs["encoder"]
    if not same and family(ours["encoder"].get("kind")) == family(theirs["encoder"].get("kind")) is not None:
        same = _source(ours["choice"]) == _source(theirs["choice"]) is not None
    if run.encoder or not same:
        raise UsageError(
            f"{theirs['set']} was made by another encoder than the one that {run.folder.name} was trained with",
            hint="extract with the same --encoder and --weights",
        )


def _source(choice: Mapping[str, str] | None) -> tuple[Any, ...] | None:
    """Where an encoder's weights came from, as its feature set records it."""
    if not choice:
        return None
    fields = json.loads(choice["encoder"])
    return fields["weights"], fields["random_weights"], fields["seed"]


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
