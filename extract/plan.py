"""What an extraction has to do: which media have rows, which are known to be bad, which are left to encode.

Everything that decides this is decided here, for `--plan` and for the run alike. Decodes nothing, and writes nothing
but the index of digests.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

from epalm.cache.care.why import nearest_difference
from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec, parse_layers
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.errors import CacheError, MediaError, UsageError
from epalm.extract.encoders.registry import Encoder, EncoderChoice, build_encoder
from epalm.extract.media.limits import Limits, require_status
from epalm.extract.request import ExtractRequest
from epalm.extract.spec_builder import feature_spec
from epalm.media import MediaFile, Status
from epalm.samples import Dataset

_BYTES = {"float16": 2, "float32": 4}
_OVERHEAD = 1.05  # of the features' bytes: records and checksums
_MARGIN = 256 << 20  # bytes that are left free
_UNREADABLE = MediaError("the file cannot be read", hint="check its permissions")


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
        return self.file.status() == self.status or self.file.digest() == self.digest


@dataclass(frozen=True)
class ExtractionPlan:
    """The work, counted, with what was built to count it. Media of equal bytes count once in `pending`, else each.

    `spec` is that of the feature set at work, which may hold more than the `layers` asked for; `existing` is that set,
    where it is there. Of `media`, `hits` need nothing, `new` and `stale` are to be encoded (a stale one's file has
    changed since it was), `known_bad` are in the ledger, and `unreadable` could not be hashed. `lost` are blocks with a
    record and without their values: as if they were not in the cache. `augmented` media are to have augmented views.
    """

    request: ExtractRequest
    dataset: Dataset
    cache: Cache
    encoder: Encoder
    layers: tuple[int, ...]
    spec: FeatureSpec
    existing: FeatureSet | None
    media: int = 0
    hits: int = 0
    new: int = 0
    stale: int = 0
    known_bad: int = 0
    augmented: int = 0
    pending: tuple[Pending, ...] = ()
    lost: tuple[str, ...] = ()
    unreadable: Mapping[str, MediaError] = field(default_factory=dict)  # media → why
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)  # media → digest
    choice: EncoderChoice | None = None  # what built the encoder
    seconds: float = 0.0  # that planning took

    @property
    def equal(self) -> int:
        """Media that need not be encoded, as others of equal bytes will be."""
        return self.new + self.stale - len(self.pending)

    @property
    def bytes(self) -> int:
        """What the new rows will take on disk."""
        row = math.prod(self.spec.row_shape) * _BYTES[self.spec.stored_dtype]
        return row * sum(len(item.views) for item in self.pending)

    @property
    def free_bytes(self) -> int | None:
        """Where the cache lies; None where that is not known."""
        return self.cache.objects.free_bytes()

    def by_views(self) -> Iterator[tuple[tuple[int, ...], list[Pending]]]:
        """What is pending in its order, in runs of media that lack the same views: these can share blocks."""
        ordered = sorted(self.pending, key=lambda item: item.views)  # stable: the data set's order within each
        for views, items in groupby(ordered, key=lambda item: item.views):
            yield views, list(items)

    def require_room(self) -> None:
        """Raise CacheError when the rows would not fit, a margin left."""
        needed, free = int(self.bytes * _OVERHEAD), self.free_bytes
        if free is not None and self.pending and needed + _MARGIN > free:
            raise CacheError(
                f"{needed / 2**20:,.0f} MiB of features do not fit: {free / 2**20:,.0f} MiB are free, and "
                f"{_MARGIN >> 20} of them are kept",
                hint="free space (epalm cache gc), give another --cache, or fewer --layers or --views",
            )

    def other_setting(self) -> list[str]:
        """Where no medium has a row here, and another set holds some of them: in which inputs that one differs."""
        if self.hits or not self.new:
            return []
        media, holding = set(self.digests.values()), []
        for name in self.cache.set_names():
            with suppress(CacheError):  # a damaged set explains nothing; `cache verify` names it
                features = self.cache.load(name)
                if features.spec.modality == self.spec.modality and not media.isdisjoint(features.rows()):
                    holding.append(features)
        return nearest_difference(self.spec, holding)


def plan(request: ExtractRequest, *, dry: bool = False) -> ExtractionPlan:
    """What `execute` would do for a request; with `dry`, nothing is written at all.

    Raises:
        UsageError: an option, the data set or the encoder's weights cannot be used.
        CacheError: the cache is damaged.
    """
    choice, limits = request.choice(), request.limits()
    request.cluster()  # raises now
    dataset = load_dataset(request.source, request.modality, write=not dry)
    encoder = build_encoder(choice, device=request.device, compiled=request.compiled, limits=limits)
    if request.views and encoder.input.augmentation is None:
        raise UsageError("there is nothing to draw augmented views from: the augmentation is off", hint="--views 0")
    layers = parse_layers(request.layers, encoder.depth)
    cache = Cache(request.cache, read_only=dry)
    return plan_media(request, dataset, encoder, layers, cache, choice=choice)


def plan_media(
    request: ExtractRequest,
    dataset: Dataset,
    encoder: Encoder,
    layers: tuple[int, ...],
    cache: Cache,
    *,
    choice: EncoderChoice | None = None,
) -> ExtractionPlan:
    """The same for parts that are built already: compares the data set's media with what the cache holds.

    Only media of the request's `views_split` get augmented views, or all where the data set has no such split. A set
    that holds more layers serves as well; of several, the one that holds most of these rows is taken.
    """
    started = time.perf_counter()
    spec = feature_spec(encoder, layers, request.dtype, view_seed=request.view_seed)
    media = dataset.media(request.modality)
    files, statuses, unreadable = _locate(dataset, media, encoder.input.limits)
    digests: dict[str, str] = {}
    for name, digest in zip(files, cache.media.digests(list(files.values()), list(statuses.values())), strict=True):
        if digest is None:
            unreadable[name] = _UNREADABLE
        else:
            digests[name] = digest
    wanted = _wanted_views(dataset, digests, request)
    existing = _choose(cache.serving(spec), wanted)
    rows = {view: existing.rows(view) if existing else set[str]() for view in range(request.views + 1)}
    lost = existing.lost_blocks() if existing else []
    for record in lost:
        for view in rows.keys() & set(record.views):
            rows[view] -= set(record.rows)
    bad = set(existing.ledger.digests()) - rows[0] if existing and not request.retry_bad else set[str]()
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
    return ExtractionPlan(
        request,
        dataset,
        cache,
        encoder,
        layers,
        existing.spec if existing else spec,
        existing,
        media=len(media),
        hits=hits,
        new=len(to_do) - stale,
        stale=stale,
        known_bad=known_bad,
        augmented=sum(len(wanted[digest]) > 1 for digest in digests.values()),
        pending=tuple(pending.values()),
        lost=tuple(record.block for record in lost),
        unreadable=unreadable,
        digests=digests,
        choice=choice,
        seconds=time.perf_counter() - started,
    )


def _wanted_views(dataset: Dataset, digests: Mapping[str, str], request: ExtractRequest) -> dict[str, tuple[int, ...]]:
    """The views of each digest. Media of equal bytes share a row, which needs what the most demanding of them does."""
    every, first = tuple(range(request.views + 1)), (0,)
    split = {sample.media for sample in dataset.split(request.views_split)} if request.views else set()
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
