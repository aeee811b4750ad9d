"""A feature set as training and scoring open it: which of its layers, and what is said of media that are not here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from epalm.errors import CacheError

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.cache.store import Cache
    from epalm.samples import Dataset, Sample
    from epalm.train.data.features import CachedFeatures


def open_features(
    cache: "Cache",
    name: str,
    dataset: "Dataset",
    samples: "Sequence[Sample]",
    layers: str | Sequence[int] | None,
    *,
    mapped: bool = False,
) -> "CachedFeatures":
    """The rows of these samples' media; `layers` as typed, or as block numbers; `mapped`: for several processes.

    Raises:
        UsageError: layers of no known form, or that the set does not hold.
        CacheError: there is no such set, or it is damaged.
    """
    from epalm.cache.care.uses import touch
    from epalm.console import say
    from epalm.train.data.features import CachedFeatures

    found = cache.find(name)
    if not cache.read_only:
        touch(found.objects)
    chosen = chosen_layers(cache, found, layers) if layers is None or isinstance(layers, str) else layers
    features = CachedFeatures(found, cache, dataset, samples, layers=chosen, mapped=mapped)
    if features.sourceless:
        say(f"{features.sourceless:,} media are not here: their rows are found by the names of the extraction")
    return features


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
