"""What an extraction has to do: which media are in the cache, which are known to be bad, which are left.

Knows data sets, digests and the ledger; decodes nothing and writes nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.errors import CacheError, MediaError
from epalm.extract.media.limits import Limits, require_file, require_status
from epalm.fingerprint import digest_file
from epalm.media import MediaFile, Status
from epalm.samples import Dataset, Modality

_BYTES = {"float16": 2, "float32": 4}
_OVERHEAD = 1.05  # of the features' bytes: records and checksums
_MARGIN = 256 << 20  # bytes that are left free


@dataclass(frozen=True, slots=True)
class Pending:
    """A medium to encode: its name, where it lies, what its bytes and status were, and the views that it lacks."""

    media: str
    file: MediaFile
    digest: str
    status: Status
    views: tuple[int, ...]

    def unchanged(self) -> bool:
        """Whether the file still has the bytes that were hashed; read again only where its state is another one."""
        return self.file.status() == self.status or _digest(self.file) == self.digest


@dataclass(frozen=True)
class Plan:
    """The work, counted. Media with equal bytes count once in `pending` and each in the other figures.

    `spec` is that of the feature set at work, which may hold more layers than were asked for. Of `media`, `hits` need
    nothing, `new` and `stale` are to be encoded (a stale one's file has changed since it was), `known_bad` are in the
    ledger, and `unreadable` could not be hashed. `equal` are to be encoded and have the bytes of one in `pending`.
    Beside media, `passed_over` counts files by reason, and `linked_roots` are folders that links led to.
    """

    spec: FeatureSpec
    existing: FeatureSet | None
    media: int
    hits: int
    new: int
    stale: int
    known_bad: int
    pending: tuple[Pending, ...]
    augmented: int = 0  # media that are to have augmented views
    passed_over: Mapping[str, int] = field(default_factory=dict)
    linked_roots: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()  # blocks with a record and without their values: as if they were not in the cache
    unreadable: Mapping[str, MediaError] = field(default_factory=dict)  # media → why
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)  # media → digest

    @property
    def equal(self) -> int:
        """Media that need not be encoded, as others of equal bytes will be."""
        return self.new + self.stale - len(self.pending)

    @property
    def bytes(self) -> int:
        """What the new rows will take on disk."""
        row = math.prod(self.spec.row_shape) * _BYTES[self.spec.stored_dtype]
        return row * sum(len(item.views) for item in self.pending)

    def by_views(self) -> Iterator[tuple[tuple[int, ...], list[Pending]]]:
        """What is pending in its order, in runs of media that lack the same views: these can share blocks."""
        ordered = sorted(self.pending, key=lambda item: item.views)  # stable: the data set's order within each
        for views, items in groupby(ordered, key=lambda item: item.views):
            yield views, list(items)

    def require_room(self, free: int | None) -> None:
        """Raise CacheError when the rows would not fit into `free` bytes, a margin left."""
        needed = int(self.bytes * _OVERHEAD)
        if free is not None and self.pending and needed + _MARGIN > free:
            raise CacheError(
                f"{needed / 2**20:,.0f} MiB of features do not fit: {free / 2**20:,.0f} MiB are free, and "
                f"{_MARGIN >> 20} of them are kept",
                hint="free space (epalm cache gc), give another --cache, or fewer --layers or --views",
            )


def make_plan(
    dataset: Dataset,
    modality: Modality,
    spec: FeatureSpec,
    cache: Cache,
    *,
    views: int = 0,
    retry_bad: bool = False,
    views_split: str = "train",
    limits: Limits | None = None,
) -> Plan:
    """Compare the data set's media with what the cache holds, for view 0 and `views` augmented ones.

    Only media of `views_split` get augmented views, or all where the data set has no such split. A set that holds
    more layers serves as well; of several, the one that holds most of these rows is taken. Opens no feature set that
    is not there yet.
    """
    media = dataset.media(modality)
    files, statuses, unreadable = _locate(dataset, media, limits or Limits())
    digests: dict[str, str] = {}
    for name, digest in zip(files, cache.media.digests(list(files.values()), list(statuses.values())), strict=True):
        if digest is None:
            unreadable[name] = _why(files[name])
        else:
            digests[name] = digest
    wanted = _wanted_views(dataset, digests, views, views_split)
    existing = _choose(cache.serving(spec), wanted)
    rows = {view: existing.rows(view) if existing else set[str]() for view in range(views + 1)}
    lost = existing.lost_blocks() if existing else []
    for record in lost:
        for view in rows.keys() & set(record.views):
            rows[view] -= set(record.rows)
    bad = set(existing.ledger.digests()) - rows[0] if existing and not retry_bad else set[str]()
    hits = known_bad = 0
    to_do: dict[str, tuple[int, ...]] = {}  # media → the views that they lack
    for name, digest in digests.items():
        lacking = tuple(view for view in wanted[digest] if digest not in rows[view])
        if not lacking:
            hits += 1
        elif digest in bad:
            known_bad += 1
        else:
            to_do[name] = lacking
    earlier = cache.media.previous([files[name] for name in to_do], [statuses[name] for name in to_do])
    stale = sum(earlier.get(files[name]) in rows[0] for name in to_do if digests[name] not in rows[0])
    pending: dict[str, Pending] = {}
    for name, lacking in to_do.items():
        digest = digests[name]
        pending.setdefault(digest, Pending(name, files[name], digest, statuses[name], lacking))
    return Plan(
        spec=existing.spec if existing else spec,
        existing=existing,
        media=len(media),
        hits=hits,
        new=len(to_do) - stale,
        stale=stale,
        known_bad=known_bad,
        pending=tuple(pending.values()),
        augmented=sum(len(wanted[digest]) > 1 for digest in digests.values()),
        passed_over=dataset.passed_over,
        linked_roots=dataset.linked_roots(),
        lost=tuple(record.block for record in lost),
        unreadable=unreadable,
        digests=digests,
    )


def _digest(file: MediaFile) -> str | None:
    try:
        return digest_file(file.path, file.offset, file.size)
    except OSError:
        return None


def _wanted_views(
    dataset: Dataset, digests: Mapping[str, str], views: int, views_split: str
) -> dict[str, tuple[int, ...]]:
    """The views of each digest. Media of equal bytes share a row, which needs what the most demanding of them does."""
    every, first = tuple(range(views + 1)), (0,)
    split = {sample.media for sample in dataset.split(views_split)} if views else set()
    augmented = {digest for name, digest in digests.items() if not split or name in split}
    return {digest: every if digest in augmented else first for digest in digests.values()}


def _choose(serving: list[FeatureSet], wanted: Mapping[str, tuple[int, ...]]) -> FeatureSet | None:
    """Of the sets that serve, the one that holds most of what is wanted; of equals the first, the exact one."""
    if len(serving) <= 1:
        return serving[0] if serving else None
    media: dict[int, set[str]] = {}
    for digest, views in wanted.items():
        for view in views:
            media.setdefault(view, set()).add(digest)
    return max(serving, key=lambda one: sum(len(digests & one.rows(view)) for view, digests in media.items()))


def _locate(
    dataset: Dataset, media: tuple[str, ...], limits: Limits
) -> tuple[dict[str, MediaFile], dict[str, Status], dict[str, MediaError]]:
    """Where the media lie, and their status before they are hashed: a file that changes afterwards is noticed."""
    files: dict[str, MediaFile] = {}
    statuses: dict[str, Status] = {}
    refused: dict[str, MediaError] = {}
    for name in media:
        try:
            file = dataset.locate(name)
            statuses[name] = require_status(file, limits)
            files[name] = file
        except MediaError as error:
            refused[name] = error
    return files, statuses, refused


def _why(file: MediaFile) -> MediaError:
    """Why a file that was there could not be hashed."""
    try:
        require_file(file, Limits())
    except MediaError as error:
        return error
    return MediaError("the file cannot be read", hint="check its permissions")
