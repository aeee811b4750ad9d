"""What an extraction has to do: which media have rows, which are known to be bad, which are left to encode.

Everything that decides this is decided here, for `--plan` and for the run alike. Decodes nothing, and writes nothing
but the index of digests.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from epalm.cache.blocks import Record
from epalm.cache.care.why import nearest_difference
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import look_up, read_manifests
from epalm.cache.spec import FeatureSpec, parse_layers
from epalm.cache.store import Cache
from epalm.cache.token_rules import CLS
from epalm.datasets import from_anywhere, load_dataset, without_cycle_search
from epalm.errors import CacheError, MediaError, UsageError
from epalm.extract.encoders.registry import Encoder, build_encoder
from epalm.extract.media.limits import require_status
from epalm.extract.request import ExtractRequest
from epalm.extract.spec_builder import feature_spec
from epalm.media import MediaFile, Status
from epalm.samples import Dataset

_UNREADABLE = MediaError("the file cannot be read", hint="check its permissions")


@dataclass(frozen=True, slots=True)
class Pending:
    """A medium to encode: its name, where it lies, what its bytes and status were, and the views that it lacks."""

    media: str
    file: MediaFile
    digest: str
    status: Status
    views: tuple[int, ...]


@dataclass(frozen=True)
class ExtractionPlan:
    """The work, counted, with what was built to count it.

    `spec` is that of the feature set at work, which may hold more than the `layers` asked for, or all tokens of them;
    `existing` is that set, where it is there. Of `media`, `hits` need nothing, `new` and `stale` are to be encoded (a
    stale one's file has changed since it was), `known_bad` are in the ledger, and `unreadable` could not be hashed. Of
    those to encode, `pending` has one of each content, those that lack the same views together, as these share blocks;
    the `equal` ones are left out. `lost` are blocks with a record and without values, as if not in the cache.
    `augmented` media are to have augmented views.
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
    equal: int = 0
    augmented: int = 0
    bytes: int = 0  # that the new rows will take on disk
    pending: tuple[Pending, ...] = ()
    lost: tuple[Record, ...] = ()
    unreadable: Mapping[str, MediaError] = field(default_factory=dict)  # media → why
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)  # media → digest
    rule: str = CLS  # of the tokens that were asked for
    derived: str = ""  # which tokens come out of the set's, in words, where it does not hold those
    seconds: float = 0.0  # that planning took

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
    choice = request.choice()
    request.cluster()  # raises now
    dataset = load_dataset(request.source, request.modality, write=not dry)
    encoder = build_encoder(choice, device=request.device, compiled=request.compiled, limits=request.limits)
    if request.views and encoder.input.augmentation is None:
        raise UsageError("there are no augmented views: the encoder has none, or they are off", hint="use --views 0")
    layers = parse_layers(request.layers, range(encoder.depth))
    return plan_media(request, dataset, encoder, layers, Cache(request.cache, read_only=dry))


@without_cycle_search()
def plan_media(
    request: ExtractRequest, dataset: Dataset, encoder: Encoder, layers: tuple[int, ...], cache: Cache
) -> ExtractionPlan:
    """The same for parts that are built already: compares the data set's media with what the cache holds.

    Only media of the request's `views_split` get augmented views, or all where the data set has no such split. A set
    that holds more layers serves as well, and one of all tokens where it lacks nothing; of several, the one that holds
    most of these rows is taken.
    """
    started = time.perf_counter()
    spec = feature_spec(encoder, layers, request.dtype, view_seed=request.view_seed)
    files: dict[str, MediaFile] = {}
    statuses: dict[str, Status] = {}  # from before they are hashed: a file that changes afterwards is noticed
    unreadable: dict[str, MediaError] = {}
    media = dataset.media(request.modality)
    for name in media:
        try:
            file = dataset.locate(name)
            statuses[name] = require_status(file, encoder.input.limits)
            files[name] = file
        except MediaError as error:
            unreadable[name] = error
    hashed = dict(zip(files, cache.media.digests([*files.values()], [*statuses.values()]), strict=True))
    digests = {name: digest for name, digest in hashed.items() if digest}
    unreadable |= dict.fromkeys(hashed.keys() - digests.keys(), _UNREADABLE)
    # Media of equal bytes share a row, which needs what the most demanding of them does.
    split = {sample.media for sample in dataset.split(request.views_split)} if request.views else set()
    augmented = {digest for name, digest in digests.items() if not split or name in split}
    every = tuple(range(request.views + 1))
    wanted = {digest: every if digest in augmented else (0,) for digest in digests.values()}
    for existing in (*_by_rows(cache.serving(spec), wanted), None):
        rows = {view: existing.rows(view) if existing else set[str]() for view in every}
        lost = existing.lost_blocks() if existing else []
        for record in lost:
            for view in rows.keys() & set(record.views):
                rows[view] -= set(record.rows)
        bad = set(existing.ledger.digests()) - rows[0] if existing and not request.retry_bad else set[str]()
        lacking = {
            digest: missing
            for digest, views in wanted.items()
            if (missing := tuple(view for view in views if digest not in rows[view]))
        }
        to_do = [name for name, digest in digests.items() if digest in lacking and digest not in bad]
        if existing is None or existing.spec.rule == spec.rule or not to_do:
            break  # what a set of all tokens lacks is for a set of those asked for
    known_bad = sum(digest in bad for digest in digests.values())
    named: dict[str, str | None] = {}
    if existing and to_do:
        with suppress(CacheError):  # a damaged manifest, which this extraction writes again, only miscounts
            named = look_up(read_manifests(existing.objects), from_anywhere(dataset.spec))
    stale = sum(digests[name] not in rows[0] and named.get(name) in rows[0] for name in to_do)
    pending: dict[str, Pending] = {}
    for name in to_do:
        digest = digests[name]
        pending.setdefault(digest, Pending(name, files[name], digest, statuses[name], lacking[digest]))
    used = existing.spec if existing else spec
    return ExtractionPlan(
        request,
        dataset,
        cache,
        encoder,
        layers,
        used,
        existing,
        media=len(media),
        hits=len(digests) - len(to_do) - known_bad,
        new=len(to_do) - stale,
        stale=stale,
        known_bad=known_bad,
        equal=len(to_do) - len(pending),
        augmented=sum(len(wanted[digest]) > 1 for digest in digests.values()),
        bytes=used.row_bytes * sum(len(item.views) for item in pending.values()),
        pending=tuple(sorted(pending.values(), key=lambda item: item.views)),  # else in the data set's order
        lost=tuple(lost),
        unreadable=unreadable,
        digests=digests,
        rule=spec.rule,
        derived="" if spec.rule == used.rule else f"{spec.rule} tokens are made of its {used.rule}",
        seconds=time.perf_counter() - started,
    )


def _by_rows(serving: list[FeatureSet], wanted: Mapping[str, tuple[int, ...]]) -> list[FeatureSet]:
    """The sets that serve, first those that hold most of what is wanted; of equals the exact one first."""

    def held(one: FeatureSet) -> int:
        rows = {view: one.rows(view) for view in one.views()}
        return sum(digest in rows.get(view, ()) for digest, views in wanted.items() for view in views)

    return sorted(serving, key=held, reverse=True) if len(serving) > 1 else serving
