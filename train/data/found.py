"""Which row stands for a medium: told by the digest of its bytes, by its name where the file is not here.

A file that is here is never taken at its name: one that has changed has no row, however it is called.
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


class Lack(StrEnum):
    """Why a medium has no row."""

    NEW = "new"  # not extracted yet
    STALE = "stale"  # its file has changed since it was extracted
    BAD = "bad"  # in the ledger
    ABSENT = "absent"  # no file, and no row by its name


@dataclass(frozen=True, slots=True)
class Hole:
    """A medium without a row: the kind of lack, and what to tell the user."""

    lack: Lack
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """Media with the digest of their row, and the others; `sourceless` have a row and no file."""

    digests: Mapping[str, str]
    holes: Mapping[str, Hole]
    sourceless: int


def find_rows(features: FeatureSet, cache: Cache, dataset: Dataset, names: Sequence[str]) -> Found:
    """Look for the rows of these media. Raises CacheError when the set is damaged."""
    files, refused = _locate(dataset, names)
    hashed = dict(zip(files, cache.media.digests(list(files.values())), strict=True))
    rows = features.rows()
    digests = {name: digest for name, digest in hashed.items() if digest in rows}
    if len(digests) == len(names):
        return Found(digests, {}, 0)
    noted = {entry.media: entry for entry in features.ledger.entries()}
    known = look_up(read_manifests(features.objects), from_anywhere(dataset.spec))
    holes, sourceless = {}, 0
    for name in names:
        if name in digests:
            continue
        digest, named = hashed.get(name), known.get(name)
        if name in refused:
            holes[name] = Hole(Lack.ABSENT, refused[name])
        elif digest:
            holes[name] = _of_file(digest, noted.get(name), changed=named is not None and named in rows)
        elif named and named in rows and files[name].status() is None:
            digests[name] = named
            sourceless += 1
        else:
            holes[name] = _of_no_file(noted.get(name), several=name in known and named is None)
    return Found(digests, holes, sourceless)


def _of_file(digest: str, entry: Entry | None, *, changed: bool) -> Hole:
    if entry and entry.digest == digest:
        return Hole(Lack.BAD, entry.error)
    if changed:
        return Hole(Lack.STALE, "the file has changed since it was extracted")
    return Hole(Lack.NEW, "not extracted yet")


def _of_no_file(entry: Entry | None, *, several: bool) -> Hole:
    if entry and not entry.digest:
        return Hole(Lack.BAD, entry.error)
    if several:
        return Hole(Lack.ABSENT, "the file is not here, and in the cache its name stands for several media")
    return Hole(Lack.ABSENT, "the file is missing or unreadable")


def _locate(dataset: Dataset, names: Sequence[str]) -> tuple[dict[str, MediaFile], dict[str, str]]:
    files, refused = {}, {}
    for name in names:
        try:
            files[name] = dataset.locate(name)
        except MediaError as error:
            refused[name] = error.message
    return files, refused
