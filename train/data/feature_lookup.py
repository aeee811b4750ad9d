"""Which row belongs to a medium: found by the digest of its bytes, or by its name where the file is not here.

The name never stands in for a file that is here: a changed file has no row, whatever it is called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
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


@dataclass(frozen=True, slots=True)
class Lookup:
    """Media with the digest of their row, and those without one; `sourceless` have a row and no file."""

    digests: Mapping[str, str]
    missing: Mapping[str, MissingFeature]
    sourceless: int


def look_up_features(features: FeatureSet, cache: Cache, dataset: Dataset, media: Sequence[str]) -> Lookup:
    """Find the rows of these media. Raises CacheError when the set is damaged."""
    files: dict[str, MediaFile] = {}
    missing: dict[str, MissingFeature] = {}
    for name in media:
        try:
            files[name] = dataset.locate(name)
        except MediaError as error:
            missing[name] = MissingFeature(Reason.ABSENT, error.message)
    hashed = dict(zip(files, cache.media.digests(list(files.values())), strict=True))
    rows = features.rows()
    digests = {name: digest for name, digest in hashed.items() if digest in rows}
    if len(digests) == len(media):
        return Lookup(digests, {}, 0)
    ledger = {entry.media: entry for entry in features.ledger.entries()}
    by_name = look_up(read_manifests(features.objects), from_anywhere(dataset.spec))
    sourceless = 0
    for name in media:
        if name in digests or name in missing:
            continue
        digest, named = hashed[name], by_name.get(name)
        if digest is None and named in rows and files[name].status() is None:
            digests[name] = str(named)
            sourceless += 1
        else:
            several = name in by_name and named is None
            missing[name] = _missing(digest, ledger.get(name), extracted=named in rows, several=several)
    return Lookup(digests, missing, sourceless)


def _missing(digest: str | None, entry: Entry | None, *, extracted: bool, several: bool) -> MissingFeature:
    """Of a file with this digest (None: it cannot be read); `extracted`: its name has a row, of other bytes."""
    if entry and (entry.digest == digest if digest else not entry.digest):
        return MissingFeature(Reason.BAD, entry.error)
    if digest and extracted:
        return MissingFeature(Reason.STALE, "the file has changed since it was extracted")
    if digest:
        return MissingFeature(Reason.NEW, "not extracted yet")
    if several:
        return MissingFeature(Reason.ABSENT, "the file is not here, and in the cache its name stands for several media")
    return MissingFeature(Reason.ABSENT, "the file is missing or unreadable")
