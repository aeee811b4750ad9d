"""The canary of a training: a few rows are encoded again where media and encoder are at hand."""

import random
from collections.abc import Mapping, Sequence

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.console import say
from epalm.errors import CacheError, EpalmError, MediaError
from epalm.extract.canary import Deviation, compare_rows
from epalm.extract.run_encoder import rebuild_encoder
from epalm.extract.selection import feature_spec
from epalm.extract.versions import library_versions
from epalm.media import MediaFile
from epalm.samples import Dataset, Sample

_CHECKED = 3  # media
_LOOKED_FOR = 1000  # media, where most are not here


def check_canary(features: FeatureSet, cache: Cache, dataset: Dataset, samples: Sequence[Sample], device: str) -> None:
    """Say that some rows are what would be encoded now, or why that cannot be told.

    Raises:
        CacheError: they are not; the message names the medium, and which libraries have changed.
    """
    media = _some(cache, dataset, samples)
    if not media:
        say("canary: not checked, the media are not here")
        return
    spec, recorded = features.spec, features.recorded
    told = {"choice": recorded, "encoder": dict(spec.encoder), "preprocessing": dict(spec.preprocessing)}
    try:
        encoder = rebuild_encoder(told, device, local_only=True)
    except EpalmError as error:
        say(f"canary: not checked, the encoder is not at hand: {error.message}")
        return
    seed = int((spec.augmentation or {"seed": 0})["seed"])
    if feature_spec(encoder, spec.layers, spec.stored_dtype, view_seed=seed).fingerprint != spec.fingerprint:
        say("canary: not checked, this version of epalm would give other numbers, and extract into another set")
        return
    reader = features.open(only={digest for _, _, digest in media})
    try:
        deviations = compare_rows(reader, spec.layers, encoder, media, view_seed=seed)
    except MediaError as error:
        say(f"canary: not checked, {error.message}")
        return
    worst = max(deviations, key=lambda one: (one.alarming, one.share))
    if worst.alarming:
        digest = next(digest for name, _, digest in media if name == worst.media)
        raise CacheError(
            f"the canary: {worst.media}, view {worst.view}, encoded now is off by {worst.share:.1%} of a token's "
            f"length from the row in {features.name} (at most {worst.tolerance:.1%} is rounding)"
            f"{_changed(_making_of(features, digest, worst))}",
            hint="extract into another --cache and compare, or go on as it is with --no-canary",
        )
    views = sorted({one.view for one in deviations})
    say(
        f"canary: {len(media)} media encoded again in view{'s' if len(views) > 1 else ''} "
        f"{' and '.join(map(str, views))}, off by at most {worst.share:.2%} of a token's length"
    )


def _some(cache: Cache, dataset: Dataset, samples: Sequence[Sample]) -> list[tuple[str, MediaFile, str]]:
    """A few random media that are here, others each time, with the digest of their bytes."""
    names = list(dict.fromkeys(sample.media for sample in samples))
    found: list[tuple[str, MediaFile, str]] = []
    for name in random.sample(names, min(len(names), _LOOKED_FOR)):
        try:
            file = dataset.locate(name)
        except MediaError:
            continue
        digest = cache.media.digest(file) if file.status() else None
        if digest:
            found.append((name, file, digest))
        if len(found) == _CHECKED:
            break
    return found


def _making_of(features: FeatureSet, digest: str, row: Deviation) -> Mapping[str, str]:
    """What the extraction that made a row said of itself: a later one into the same set may have said otherwise."""
    for record in features.records():
        if row.view in record.views and digest in record.rows:
            return record.recorded
    return {}


def _changed(recorded: Mapping[str, str]) -> str:
    now = library_versions()
    other = [f"{name} {recorded[name]} → {now[name]}" for name in now if recorded.get(name, now[name]) != now[name]]
    return f"; since then: {', '.join(other)}" if other else "; no library has changed"
