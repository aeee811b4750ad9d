"""Which row belongs to a medium: found by the digest of its bytes, or by its name where the file is not here.

The name never stands in for a file that is here: a changed file has no row, whatever it is called.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import look_up, read_manifests
from epalm.cache.store import Cache
from epalm.datasets import from_anywhere
from epalm.errors import MediaError
from epalm.media import MediaFile
from epalm.samples import Dataset


class Reason(StrEnum):
    """Why a medium has no row."""

    NEW = "new"  # not extracted yet
    STALE = "stale"  # its file has changed since it was extracted
    BAD = "bad"  # in the ledger
    ABSENT = "absent"  # no file, and no row by its name


@dataclass(frozen=True, slots=True)
class MissingFeature:
    """A medium without a row: the reason, and what to tell the user."""

    reason: Reason
    message: str


@dataclass(slots=True)
class Lookup:
    """Media with the digest of their row, and those without one; `sourceless` have a row and no file."""

    digests: dict[str, str] = field(default_factory=dict)
    missing: dict[str, MissingFeature] = field(default_factory=dict)
    sourceless: int = 0


def look_up_features(features: FeatureSet, cache: Cache, dataset: Dataset, media: Sequence[str]) -> Lookup:
    """Find the rows of these media. Raises CacheError when the set is damaged."""
    found, files = Lookup(), dict[str, MediaFile]()
    for name in media:
        try:
            files[name] = dataset.locate(name)
        except MediaError as error:
            found.missing[name] = MissingFeature(Reason.ABSENT, error.message)
    hashed = dict(zip(files, cache.media.digests(list(files.values())), strict=True))
    rows = features.rows()
    found.digests = {name: digest for name, digest in hashed.items() if digest in rows}
    if len(found.digests) == len(media):
        return found
    ledger = {entry.media: entry for entry in features.ledger.entries()}
    by_name = look_up(read_manifests(features.objects), from_anywhere(dataset.spec))
    for name in [name for name in hashed if name not in found.digests]:
        digest, named, entry = hashed[name], by_name.get(name), ledger.get(name)
        if digest is None and named in rows and files[name].status() is None:
            found.digests[name] = str(named)
            found.sourceless += 1
        elif entry and (entry.digest or None) == digest:
            found.missing[name] = MissingFeature(Reason.BAD, entry.error)
        elif digest and named in rows:
            found.missing[name] = MissingFeature(Reason.STALE, "the file has changed since it was extracted")
        elif digest:
            found.missing[name] = MissingFeature(Reason.NEW, "not extracted yet")
        else:
            several = (
                ", and in the cache its name stands for several media" if name in by_name and named is None else ""
            )
            found.missing[name] = MissingFeature(Reason.ABSENT, f"the file is missing or cannot be read{several}")
    return found
