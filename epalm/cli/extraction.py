"""One extraction from its options: data set, encoder and engine are built here, then planned or run."""

from contextlib import suppress
from dataclasses import dataclass

from epalm.cache.care.why import nearest_difference
from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import parse_layers
from epalm.cache.store import Cache
from epalm.cli.engines import require_engine
from epalm.console import say, warn
from epalm.dask_cluster import Cluster
from epalm.datasets import load_dataset
from epalm.errors import CacheError, UsageError
from epalm.extract.dask_blocks import DaskEngine
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoders.registry import EncoderChoice, build_encoder
from epalm.extract.media.limits import Limits
from epalm.extract.pipeline import Engine, ExtractSummary, LocalEngine, extract_features
from epalm.extract.plan import Plan, make_plan
from epalm.extract.probe import probe_seconds
from epalm.extract.selection import feature_spec
from epalm.samples import Dataset, Modality


@dataclass(frozen=True)
class Job:
    """What decides the rows."""

    modality: Modality
    data: str
    choice: EncoderChoice
    layers: str
    dtype: str = "float16"
    views: int = 0
    view_seed: int = 0
    views_split: str = "train"
    retry_bad: bool = False


@dataclass(frozen=True)
class Machine:
    """What decides only how long it takes."""

    device: str = "auto"
    batch_size: int = 32
    block_rows: int = 512
    workers: int | None = None
    compiled: bool = False
    engine: str = "local"
    scheduler: str | None = None
    dask_workers: int = 2
    timeout: float = 120.0

    def build_local(self, encoder: Encoder) -> LocalEngine:
        """This process as the engine."""
        return LocalEngine(encoder, self.batch_size, self.workers, self.block_rows, self.timeout)

    def build_engine(self, encoder: Encoder, job: Job, limits: Limits, cache: Cache) -> Engine:
        """The engine that was asked for. Raises UsageError."""
        require_engine(self.engine, self.scheduler)
        if self.engine == "local":
            return self.build_local(encoder)
        return DaskEngine(
            job.choice,
            cache.where,
            limits,
            cluster=Cluster(self.scheduler, self.dask_workers),
            device=self.device,
            compiled=self.compiled,
            batch_size=self.batch_size,
            workers=self.workers,
            block_rows=self.block_rows,
            timeout=self.timeout,
        )


@dataclass(frozen=True)
class Forecast:
    """A plan, the seconds that it may take in this process, and the bytes that are free.

    `other_setting` says where all media are new although another set holds some: in which inputs it differs.
    """

    plan: Plan
    seconds: float
    free: int | None
    other_setting: list[str]


def plan_extraction(job: Job, machine: Machine, limits: Limits, where: str) -> Forecast:
    """What an extraction would do; nothing is written."""
    cache = Cache(where, read_only=True)
    dataset, encoder, layers = _build(job, machine, limits, write=False)
    spec = feature_spec(encoder, layers, job.dtype, view_seed=job.view_seed)
    plan = make_plan(
        dataset,
        job.modality,
        spec,
        cache,
        views=job.views,
        views_split=job.views_split,
        retry_bad=job.retry_bad,
        limits=limits,
    )
    seconds = probe_seconds(plan, machine.build_local(encoder))
    return Forecast(plan, seconds, cache.objects.free_bytes(), _other_setting(plan, cache))


def run_extraction(job: Job, machine: Machine, limits: Limits, where: str) -> ExtractSummary:
    """Encode what is missing, and remember this as the latest extraction."""
    cache = Cache(where)
    dataset, encoder, layers = _build(job, machine, limits)
    if encoder.device.type == "cuda" and encoder.precision == "float32":
        say("the encoder computes in float32; GPUs are faster at --precision bfloat16, another feature set")
    spec = feature_spec(encoder, layers, job.dtype, view_seed=job.view_seed)
    if changed := [] if cache.serving(spec) else nearest_difference(spec, _sets(cache, job.modality)):
        say(f"a new feature set; from the nearest that is there it differs in: {'; '.join(changed)}")
    summary = extract_features(
        dataset,
        job.modality,
        encoder,
        layers,
        cache,
        engine=machine.build_engine(encoder, job, limits, cache),
        dtype=job.dtype,
        views=job.views,
        view_seed=job.view_seed,
        views_split=job.views_split,
        retry_bad=job.retry_bad,
        choice=job.choice,
    )
    try:
        cache.remember(job.modality.value, summary.set_name, layers, job.data)
    except CacheError as error:
        if summary.hits < summary.media:
            raise
        if _noted(cache, job, summary.set_name, layers):
            return summary
        warn(
            f"every row is there, but {error.message}. To train on them: epalm train --from-cache --modality "
            f"{job.modality.value} --data {job.data} --feature-set {summary.set_name} --layers {job.layers}"
        )
    return summary


def _noted(cache: Cache, job: Job, name: str, layers: tuple[int, ...]) -> bool:
    """Whether this extraction is the latest of its modality already."""
    try:
        latest = cache.latest(job.modality.value)
    except CacheError:
        return False
    return (latest.set, latest.layers, latest.data) == (name, layers, job.data)


def _other_setting(plan: Plan, cache: Cache) -> list[str]:
    if plan.hits or not plan.new:
        return []
    media = set(plan.digests.values())
    holding = [one for one in _sets(cache, plan.spec.modality) if not media.isdisjoint(one.rows())]
    return nearest_difference(plan.spec, holding)


def _sets(cache: Cache, modality: str) -> list[FeatureSet]:
    """The sets of that modality whose rows can be read; damaged ones explain nothing, and `cache verify` names them."""
    sets = []
    for name in cache.set_names():
        with suppress(CacheError):
            features = cache.load(name)
            if features.spec.modality == modality:
                features.rows()
                sets.append(features)
    return sets


def _build(
    job: Job, machine: Machine, limits: Limits, *, write: bool = True
) -> tuple[Dataset, Encoder, tuple[int, ...]]:
    dataset = load_dataset(job.data, job.modality, write=write)
    encoder = build_encoder(job.choice, device=machine.device, compiled=machine.compiled, limits=limits)
    if job.views and encoder.input.augmentation is None:
        raise UsageError("there is nothing to draw augmented views from: the augmentation is off", hint="--views 0")
    return dataset, encoder, parse_layers(job.layers, encoder.depth)
