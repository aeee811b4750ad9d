"""The canary of a training: a few stored rows encoded again, to notice that this machine would give others now."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epalm.cache.care.why import library_differences
from epalm.cache.feature_set import FeatureSet
from epalm.cache.reader import FeatureReader
from epalm.cache.store import Cache
from epalm.console import say
from epalm.errors import CacheError, EpalmError, MediaError
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.inputs.views import view_of
from epalm.extract.run_encoder import rebuild_encoder
from epalm.extract.spec_builder import feature_spec, library_versions
from epalm.media import MediaFile
from epalm.samples import Dataset, Sample

# Of a token's length, how far a row may be off: rounding of the stored dtype, other kernels, other batch sizes.
TOLERANCE = {"float32": 5e-3, "bfloat16": 5e-2, "float16": 2e-2}
_CHECKED = 3  # media
_LOOKED_FOR = 1000  # media, where most are not here


@dataclass(frozen=True, slots=True)
class Medium:
    """A medium that is here: its name, its file, and the digest of its bytes."""

    name: str
    file: MediaFile
    digest: str


@dataclass(frozen=True, slots=True)
class Deviation:
    """One medium's row: the largest distance of a token to the stored one, as a share of that one's length."""

    medium: Medium
    view: int
    share: float
    tolerance: float

    @property
    def alarming(self) -> bool:
        """Whether it is more than rounding."""
        return not self.share <= self.tolerance


def check_canary(features: FeatureSet, cache: Cache, dataset: Dataset, samples: Sequence[Sample], device: str) -> None:
    """Say that some rows are what would be encoded now, or why that cannot be checked.

    Raises:
        CacheError: they are not; the message names the medium, and which libraries have changed.
    """
    spec = features.spec
    seed = int((spec.augmentation or {"seed": 0})["seed"])
    try:
        media = _some(cache, dataset, samples)
        if not media:
            raise MediaError("the media are not here")
        recorded = {"choice": features.recorded, "encoder": spec.encoder, "preprocessing": spec.preprocessing}
        try:
            encoder = rebuild_encoder(recorded, device, local_only=True)
        except EpalmError as error:
            raise MediaError(f"the encoder is not at hand: {error.message}") from error
        if feature_spec(encoder, spec.layers, spec.stored_dtype, view_seed=seed).fingerprint != spec.fingerprint:
            raise MediaError("this version of epalm would give other numbers, and extract into another set")
        reader = features.open(only={medium.digest for medium in media})
        deviations = compare_rows(reader, spec.layers, encoder, media, view_seed=seed)
    except MediaError as error:
        say(f"canary: not checked, {error.message}")
        return
    worst = max(deviations, key=lambda one: (one.alarming, one.share))
    if worst.alarming:
        changed = library_differences(*_versions(features, worst))
        raise CacheError(
            f"the canary: {worst.medium.name}, view {worst.view}, encoded now is off by {worst.share:.1%} of a token's "
            f"length from the row in {features.name} (at most {worst.tolerance:.1%} is rounding); "
            f"{'since then: ' + ', '.join(changed) if changed else 'no library has changed'}",
            hint="extract into another --cache and compare, or go on as it is with --no-canary",
        )
    views = sorted({one.view for one in deviations})
    say(
        f"canary: {len(media)} media encoded again in view{'s' if len(views) > 1 else ''} "
        f"{' and '.join(map(str, views))}, off by at most {worst.share:.2%} of a token's length"
    )


def compare_rows(
    reader: FeatureReader, layers: Sequence[int], encoder: Encoder, media: Sequence[Medium], *, view_seed: int
) -> list[Deviation]:
    """Encode media again, in view 0 and their last view, and compare; `layers` are those that the rows hold.

    Raises:
        MediaError: one cannot be decoded.
    """
    batches = BatchEncoder(encoder, layers, "float32", 1)
    found = []
    for medium in media:
        rows = reader.rows_of([medium.digest])
        for view in sorted({0, reader.views_of(rows)[-1]}):
            try:
                inputs = encoder.input(medium.file, (view_of(medium.digest, view, view_seed),))
            except MediaError as error:
                raise MediaError(f"{medium.name}: {error.message}", hint=error.hint) from error
            now = batches.collect(batches.submit([inputs]))[0, 0]  # (L, T, D)
            then = reader.gather(rows, view=view)[0].astype(np.float32)
            share = np.linalg.norm(now - then, axis=-1) / np.maximum(np.linalg.norm(then, axis=-1), 1e-6)
            found.append(Deviation(medium, view, float(share.max()), TOLERANCE[encoder.precision]))
    return found


def _some(cache: Cache, dataset: Dataset, samples: Sequence[Sample]) -> list[Medium]:
    """A few random media that are here, others each time."""
    names = list(dict.fromkeys(sample.media for sample in samples))
    found: list[Medium] = []
    for name in random.sample(names, min(len(names), _LOOKED_FOR)):
        try:
            file = dataset.locate(name)
        except MediaError:
            continue
        if digest := cache.media.digest(file) if file.status() else None:
            found.append(Medium(name, file, digest))
        if len(found) == _CHECKED:
            break
    return found


def _versions(features: FeatureSet, row: Deviation) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Library versions when a row was made, and now; a later extraction into the same set may have had others."""
    made = [record for record in features.records() if row.view in record.views and row.medium.digest in record.rows]
    now = library_versions()
    then = made[0].recorded if made else now
    return {name: then.get(name, version) for name, version in now.items()}, now
