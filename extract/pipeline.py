"""Stage 1: a plan → decode (other processes) → encode → blocks in the cache and lines in the ledger.

Knows the order of the work and who does it: this process, or the workers of a Dask cluster.
"""

import shlex
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from epalm.cache.care.collect import delete_all, leftovers
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry, Manifest, write_manifest
from epalm.cache.objects import durable
from epalm.cache.objects.local import LocalObjects
from epalm.cache.store import touch
from epalm.console import progress, warn
from epalm.datasets import from_anywhere
from epalm.errors import CacheError
from epalm.extract.dask_blocks import encode_on_cluster
from epalm.extract.plan import ExtractionPlan
from epalm.extract.spec_builder import library_versions
from epalm.extract.stream import Stream, Tally

_PROBED, _WARM_UP = 64, 8  # media
_LONGEST = 2.0  # seconds of the first media, after which they have to do


@dataclass(kw_only=True)
class ExtractSummary(Tally):
    """What an extraction did. `layers` are those asked for; the feature set may hold more."""

    set_name: str
    derived: str  # how the tokens asked for come out of the set's, in words, where these are others
    layers: tuple[int, ...]
    views: int
    augmented: int  # media that are to have these views
    media: int
    hits: int
    equal: int  # with the bytes of another medium, which was at work
    warned: int  # have a row, and a warning in the ledger
    strict: bool  # whether media with a warning count as bad
    seconds: float
    ledger: str
    passed_over: Mapping[str, int]  # files beside the media, by reason


def execute(plan: ExtractionPlan) -> ExtractSummary:
    """Encode what the plan says, and remember this as the latest extraction of its modality.

    Raises:
        CacheError: the cache cannot be written, or has too little room. A medium that cannot be read is no error:
            see `bad`.
    """
    started = time.perf_counter()
    require_room(plan)
    request, features, tally = plan.request, plan.existing, Tally()
    changes = bool(plan.pending or plan.unreadable)
    if features is None or (changes and not plan.derived):
        recorded = library_versions() | request.choice().to_record()
        features = plan.cache.feature_set(plan.spec, recorded=recorded)
    if changes:
        noted = {(entry.media, entry.error) for entry in features.ledger.entries()} if plan.unreadable else set()
        features.ledger.add_all(
            Entry(media, None, error.message, error.hint)
            for media, error in plan.unreadable.items()
            if (media, error.message) not in noted
        )
        if plan.lost:
            warn(f"{len(plan.lost)} blocks of {plan.spec.name} are not there any more; their media count as new")
        for record in plan.lost:
            features.drop(record.block, record)
    if plan.pending:
        with progress(f"extract {request.modality}", len(plan.pending), "media") as advance:
            if cluster := request.cluster():
                tally = encode_on_cluster(plan, cluster, features, advance)
            else:
                stream = Stream(plan.encoder, features, request, media=len(plan.pending), advance=advance)
                with closing(stream):
                    stream.go(plan.pending)
                tally = stream.tally
    with suppress(CacheError):  # of a cache that cannot be written nothing is swept, and nothing is lost by it
        delete_all(features.objects, leftovers(features.objects))
    try:
        write_manifest(features.objects, Manifest(from_anywhere(plan.dataset.spec), plan.digests))
    except CacheError:
        if changes:  # else all rows are there, and a cache that is only read does without
            raise
    touch(features.objects)
    _remember(plan, features.name)
    tally.bad += plan.known_bad + len(plan.unreadable)
    return ExtractSummary(
        **vars(tally),
        set_name=features.name,
        derived=plan.derived,
        layers=plan.layers,
        views=request.views,
        augmented=plan.augmented,
        media=plan.media,
        hits=plan.hits,
        equal=plan.equal,
        warned=features.count_warned(plan.digests.values()),
        strict=plan.encoder.input.limits.strict_media,
        seconds=plan.seconds + time.perf_counter() - started,
        ledger=features.ledger.where,
        passed_over=plan.dataset.passed_over,
    )


def require_room(plan: ExtractionPlan) -> None:
    """Raise CacheError when the rows would not fit, a margin left."""
    hint = "free space (epalm cache gc), give another --cache, or fewer --layers, --views or --tokens"
    durable.require_room(plan.bytes if plan.pending else 0, plan.cache.objects.free_bytes(), plan.cache.where, hint)


def probe_seconds(plan: ExtractionPlan) -> float:
    """Seconds that what is pending may take this process: some of it is extracted into a folder that is thrown away."""
    if not plan.pending:
        return 0.0
    items = max((list(some) for _, some in groupby(plan.pending, key=lambda item: item.views)), key=len)
    with TemporaryDirectory() as folder:
        features = FeatureSet(LocalObjects(Path(folder)), plan.spec)
        probed = min(_PROBED, _WARM_UP + plan.spec.block_rows(len(items[0].views), _PROBED))
        some = items[:: max(1, len(items) // probed)][:probed]
        features.prepare({})
        with closing(Stream(plan.encoder, features, plan.request, media=len(some))) as stream:
            begun = time.perf_counter()
            for part in (some[:_WARM_UP], some):  # the first starts the processes and wakes the encoder
                started = time.perf_counter()
                stream.go(part)
                each = (time.perf_counter() - started) / (len(part) * len(part[0].views))
                if time.perf_counter() - begun > _LONGEST:
                    break
    return each * sum(len(item.views) for item in plan.pending)


def _remember(plan: ExtractionPlan, name: str) -> None:
    """Note this extraction as the latest one. Of a cache that is only read, say how to train on it all the same."""
    cache, data, modality = plan.cache, plan.dataset.spec, plan.request.modality.value
    try:
        cache.remember(modality, name, plan.layers, data, plan.rule)
    except CacheError as error:
        if plan.hits < plan.media:
            raise
        with suppress(CacheError):
            latest = cache.latest(modality)
            noted = latest.set, latest.layers, latest.data, latest.tokens or plan.spec.rule
            if noted == (name, plan.layers, data, plan.rule):
                return
        tokens = f" --set encoder.tokens={plan.rule}" if plan.derived else ""
        warn(
            f"every row is there, but {error.message}. To train on them: epalm train --from-cache --modality "
            f"{modality} --data {shlex.quote(data)} --feature-set {name} --layers {plan.request.layers}{tokens}"
        )
