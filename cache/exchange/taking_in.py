"""What a set takes in from a file or another cache: the rows it lacks, the names of media, the ledger's lines.

Nothing that is there already is stored twice. Knows neither files nor how blocks travel.
"""

from collections.abc import Iterable

from epalm.cache.care.uses import touch
from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.cache.manifest import Manifest, read_manifests, write_manifest
from epalm.cache.objects.base import Objects
from epalm.cache.store import Cache, LatestExtraction
from epalm.console import size_in_words
from epalm.errors import CacheError

_OVERHEAD = 1.01  # of records and descriptions
_MARGIN = 64 << 20  # bytes that stay free


def require_room(count: int, free: int | None, where: str) -> None:
    """Raise CacheError when `count` bytes of features would not fit into `free` ones, a margin left."""
    needed = int(count * _OVERHEAD) + _MARGIN
    if count and free is not None and needed > free:
        raise CacheError(
            f"{size_in_words(count)} do not fit: {size_in_words(free)} are free in {where}, and "
            f"{size_in_words(_MARGIN)} of them are kept",
            hint="free space (epalm cache gc), or choose another place",
        )


def take_notes(features: FeatureSet, manifests: Iterable[Manifest], entries: Iterable[Entry] = ()) -> None:
    """Add names of media and lines of a ledger to a set's own; of one name in one data set, the new digest counts.

    Two processes that add to one data set's names at once, into an object store, may leave those of one of them.
    """
    with features.objects.lock("notes"):
        mine = {manifest.data: manifest for manifest in read_manifests(features.objects)}
        for manifest in manifests:
            known = mine[manifest.data].digests if manifest.data in mine else {}
            write_manifest(features.objects, Manifest(manifest.data, {**known, **manifest.digests}))
        there = (*features.ledger.entries(), *features.ledger.warnings())
        noted = {(entry.media, entry.digest, entry.warning) for entry in there}
        features.ledger.add_all(one for one in entries if (one.media, one.digest, one.warning) not in noted)
    touch(features.objects)


def note_latest(cache: Cache, features: FeatureSet, other: Cache | None = None) -> LatestExtraction | None:
    """Remember a set that was taken in as the latest extraction, so that training finds it; what was noted.

    The data set is that of the other cache's latest extraction, where it worked on this set, else the one whose
    manifest has the most media; nothing is noted where there is none.
    """
    modality, stored = features.spec.modality, features.spec.layers
    try:
        latest = other.latest(modality) if other else None
    except CacheError:  # it has none, and needs none
        latest = None
    manifests = read_manifests(features.objects)
    fits = latest and latest.set == features.name and all(layer in stored for layer in latest.layers)
    if latest and fits and isinstance(latest.data, str):
        data, layers = latest.data, latest.layers
    elif manifests:
        data, layers = max(manifests, key=lambda one: len(one.digests)).data, stored
    else:
        return None
    cache.remember(modality, features.name, layers, data)
    return cache.latest(modality)


def same_place(one: Objects, other: Objects) -> bool:
    """Whether two roots are one."""
    paths = one.path(""), other.path("")
    if paths[0] and paths[1]:
        return paths[0].resolve() == paths[1].resolve()
    return one.where.rstrip("/") == other.where.rstrip("/")
