"""Stage 1: plan → decode (other processes) → encode → blocks in the cache and lines in the ledger.

Knows the order of the work and who does it: this process, or the workers of a Dask cluster.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from epalm.cache.care.holes import count_warned
from epalm.cache.care.sweep import sweep_leftovers
from epalm.cache.care.uses import touch
from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.cache.manifest import Manifest, write_manifest
from epalm.cache.store import Cache
from epalm.console import Advance, progress, warn
from epalm.cores import usable_cores
from epalm.datasets import from_anywhere
from epalm.errors import CacheError, MediaError
from epalm.extract.decoding.workers import DEFAULT_TIMEOUT, DecodePool, Request, default_workers
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoders.registry import EncoderChoice
from epalm.extract.encoding import BatchEncoder
from epalm.extract.inputs.views import VIEW_0
from epalm.extract.plan import Plan, make_plan
from epalm.extract.selection import feature_spec
from epalm.extract.stream import Stream, Tally, decode_pool
from epalm.extract.versions import library_versions
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality

BLOCK_ROWS = 512


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did. `decode_seconds` are of all decoding processes together.

    `layers` are those asked for; the feature set may hold more.
    """

    set_name: str
    layers: tuple[int, ...]
    views: int
    augmented: int  # media that are to have these views
    media: int
    hits: int
    encoded: int
    elsewhere: int  # encoded by another process meanwhile
    equal: int  # with the bytes of another medium, which was at work
    bad: int
    warned: int  # have a row, and a warning in the ledger
    strict: bool  # whether media with a warning count as bad
    seconds: float
    decode_seconds: float
    encode_seconds: float
    ledger: str
    passed_over: Mapping[str, int]  # files beside the media, by reason

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


class Engine(Protocol):
    """Who encodes what is pending, run by run of media that lack the same views."""

    def __call__(self, plan: Plan, features: FeatureSet, advance: Advance) -> Tally: ...  # noqa: D102


@dataclass(frozen=True)
class LocalEngine:
    """This process, with decoding processes beside it."""

    encoder: Encoder
    batch_size: int = 32
    workers: int | None = None  # decoding processes [default_workers()]; 0: none
    block_rows: int = BLOCK_ROWS
    timeout: float = DEFAULT_TIMEOUT  # seconds for one file

    def __call__(self, plan: Plan, features: FeatureSet, advance: Advance) -> Tally:
        """See `Engine`."""
        spec = features.spec
        wanted = default_workers(gpu=self.encoder.device.type == "cuda") if self.workers is None else self.workers
        threads = usable_cores() if wanted else 0
        batches = BatchEncoder(self.encoder, spec.layers, spec.stored_dtype, self.batch_size, threads=threads)
        with closing(batches), decode_pool(self.encoder, min(wanted, len(plan.pending)), self.timeout) as pool:
            stream = Stream(batches, features, pool, self.block_rows, advance)
            for views, items in plan.by_views():
                stream.go(items, views)
        return stream.tally


def extract_features(
    dataset: Dataset,
    modality: Modality,
    encoder: Encoder,
    layers: tuple[int, ...],
    cache: Cache,
    *,
    engine: Engine | None = None,
    dtype: str = "float16",
    views: int = 0,
    view_seed: int = 0,
    views_split: str = "train",
    retry_bad: bool = False,
    choice: EncoderChoice | None = None,
) -> ExtractSummary:
    """Encode every medium of the data set that the cache does not hold yet, in view 0 and `views` augmented ones.

    `views_split` is the split whose media get augmented views, as only training draws them. `engine` [default: this
    process] does the work; `retry_bad` tries media again that the ledger lists; `choice` is recorded so that the
    encoder can be built again.

    Raises:
        CacheError: the cache cannot be written, or has too little room. A medium that cannot be read is no error:
            see `bad`.
    """
    started = time.perf_counter()
    spec = feature_spec(encoder, layers, dtype, view_seed=view_seed)
    plan = make_plan(
        dataset,
        modality,
        spec,
        cache,
        views=views,
        views_split=views_split,
        retry_bad=retry_bad,
        limits=encoder.input.limits,
    )
    plan.require_room(cache.objects.free_bytes())
    features, tally = plan.existing, Tally()
    if features is None or plan.pending or plan.unreadable:
        recorded = library_versions() | (choice.to_record() if choice else {})
        features = cache.feature_set(plan.spec, recorded=recorded)
        _note_unreadable(features, plan)
        if plan.lost:
            warn(f"{len(plan.lost)} blocks of {plan.spec.name} are not there any more; their media count as new")
        for block in plan.lost:
            features.drop(block)
    if plan.pending:
        with progress(f"extract {modality}", len(plan.pending), "media") as advance:
            tally = (engine or LocalEngine(encoder))(plan, features, advance)
    with suppress(CacheError):  # of a cache that cannot be written nothing is swept, and nothing is lost by it
        sweep_leftovers(features.objects)
    _note_names(features, plan, dataset)
    touch(features.objects)
    return ExtractSummary(
        set_name=features.name,
        layers=layers,
        views=views,
        augmented=plan.augmented,
        media=plan.media,
        hits=plan.hits,
        encoded=tally.encoded,
        elsewhere=tally.elsewhere,
        equal=plan.equal,
        bad=tally.bad + plan.known_bad + len(plan.unreadable),
        warned=count_warned(features, plan.digests.values()),
        strict=encoder.input.limits.strict,
        seconds=time.perf_counter() - started,
        decode_seconds=tally.decode_seconds,
        encode_seconds=tally.encode_seconds,
        ledger=features.ledger.where,
        passed_over=plan.passed_over,
    )


def encode_files(
    files: Sequence[MediaFile], encoder: Encoder, layers: Sequence[int], pool: DecodePool | None = None
) -> np.ndarray:
    """View 0 of some files (B, L, D) float32; see `encode_each`. Raises MediaError: one cannot be read."""
    rows = encode_each(files, encoder, layers, pool)
    for row in rows:
        if isinstance(row, MediaError):
            raise row
    return np.stack(rows)  # type: ignore[arg-type]


def encode_each(
    files: Sequence[MediaFile], encoder: Encoder, layers: Sequence[int], pool: DecodePool | None = None
) -> list[np.ndarray | MediaError]:
    """View 0 of each file (L, D) float32, or why it cannot be read, in one batch; `pool` [this process] decodes.

    What is odd about one is shown as a warning.
    """
    pool = pool or decode_pool(encoder, 0, DEFAULT_TIMEOUT)
    requests = (Request(file, (VIEW_0,)) for file in files)
    results = []
    for one in pool.decode(requests, ahead=len(files)):
        if one.warning:
            warn(f"{one.request.medium.path.name}: {one.warning.message}")
        results.append(one.result)
    inputs = [one for one in results if not isinstance(one, MediaError)]
    if not inputs:
        return list(results)
    batches = BatchEncoder(encoder, layers, "float32", len(files))
    tokens = iter(batches.collect(batches.submit(inputs))[:, 0, :, 0])
    return [one if isinstance(one, MediaError) else next(tokens) for one in results]


def _note_names(features: FeatureSet, plan: Plan, dataset: Dataset) -> None:
    """Keep which names stand for which rows. A cache that is only read does without: all rows are there."""
    try:
        write_manifest(features.objects, Manifest(from_anywhere(dataset.spec), plan.digests))
    except CacheError:
        if plan.pending or plan.unreadable:
            raise


def _note_unreadable(features: FeatureSet, plan: Plan) -> None:
    """A ledger line for each file that is not there; none twice for the same fault."""
    noted = {entry.media: entry.error for entry in features.ledger.entries()} if plan.unreadable else {}
    features.ledger.add_all(
        Entry(media, None, error.message, error.hint)
        for media, error in plan.unreadable.items()
        if noted.get(media) != error.message
    )
