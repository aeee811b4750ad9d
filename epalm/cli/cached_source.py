"""Which layers of a feature set a command works on."""

from typing import TYPE_CHECKING

from epalm.errors import CacheError

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.cache.store import Cache


def chosen_layers(cache: "Cache", features: "FeatureSet", asked: str | None) -> tuple[int, ...]:
    """The layers asked for, else those of the latest extraction where it worked on this set, else all stored.

    Raises:
        UsageError: `asked` is of no known form.
    """
    from epalm.extract.selection import parse_layers

    if asked is not None:
        depth = int(dict(features.spec.encoder.get("architecture", {})).get("depth", max(features.spec.layers) + 1))
        return parse_layers(asked, depth)
    try:
        latest = cache.latest(features.spec.modality)
    except CacheError:
        return features.spec.layers
    return latest.layers if latest.set == features.name else features.spec.layers
