"""The canary of a training: a few stored rows encoded again, to notice that this machine would give others now."""

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from epalm.cache.care.why import library_differences
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.console import say
from epalm.errors import CacheError, EpalmError, MediaError
from epalm.extract.encoders.registry import Encoder
from epalm.extract.inputs.augment import view_of
from epalm.extract.live import rebuild_encoder
from epalm.extract.spec_builder import library_versions, would_give
from epalm.extract.stream import BatchEncoder
from epalm.media import MediaFile
from epalm.samples import Dataset, Sample

# Of a token's length, how far a row may be off: rounding of the stored dtype, other kernels, other batch sizes.
TOLERANCE = {"float32": 5e-3, "bfloat16": 5e-2, "float16": 2e-2}
_CHECKED = 3  # media
_LOOKED_FOR = 1000  # media, where most are not here


class Deviation(NamedTuple):
    """How far a medium's row in one view is from the stored one, at most, as a share of a token's length."""

    share: float
    view: int
    name: str
    digest: str


def check_canary(features: FeatureSet, cache: Cache, dataset: Dataset, samples: Sequence[Sample], device: str) -> None:
    """Say that some rows are what would be encoded now, or why that cannot be checked.

    Raises CacheError: they are not; the message names the medium, and which libraries have changed.
    """
    try:
        media = _some(cache, dataset, samples)
        encoder = _encoder(features, device)
        deviations = compare_rows(features, encoder, media)
    except MediaError as error:
        say(f"canary: not checked, {error.message}")
        return
    tolerance, worst = TOLERANCE[encoder.precision], max(deviations, key=lambda one: (one.share != one.share, one))
    if not worst.share <= tolerance:  # also of what is no number
        now = library_versions()
        # Of that very row: a later extraction into the same set may have had others.
        made = [one.recorded for one in features.records() if worst.view in one.views and worst.digest in one.rows]
        changed = ", ".join(library_differences({**now, **made[0]}, now)) if made else ""
        raise CacheError(
            f"the canary: {worst.name}, view {worst.view}, encoded now is off by {worst.share:.1%} of a token's length "
            f"from the row in {features.name} (at most {tolerance:.1%} is rounding); "
            f"{f'since then: {changed}' if changed else 'no library has changed'}",
            hint="extract into another --cache and compare, or go on as it is with --no-canary",
        )
    views = " and ".join(f"view {view}" for view in sorted({one.view for one in deviations}))
    say(f"canary: {len(media)} media encoded again, {views}: off by at most {worst.share:.2%} of a token's length")


def compare_rows(features: FeatureSet, encoder: Encoder, media: dict[str, tuple[MediaFile, str]]) -> list[Deviation]:
    """Encode media again, in view 0 and their last view. Raises MediaError when one cannot be decoded."""
    spec, deviations = features.spec, []
    reader = features.open(only={digest for _, digest in media.values()})
    batches = BatchEncoder(encoder, spec.layers, "float32", 1)
    for name, (file, digest) in media.items():
        rows = reader.rows_of([digest])
        for view in sorted({0, reader.views_of(rows)[-1]}):
            try:
                inputs = encoder.input(file, (view_of(digest, view, spec.view_seed),))
            except MediaError as error:
                raise MediaError(f"{name}: {error.message}", hint=error.hint) from error
            now = batches.submit([inputs])()[0, 0]  # (L, T, D)
            then = reader.gather(rows, view=view)[0].astype(np.float32)
            share = np.linalg.norm(now - then, axis=-1) / np.maximum(np.linalg.norm(then, axis=-1), 1e-6)
            deviations.append(Deviation(float(share.max()), view, name, digest))
    return deviations


def _some(cache: Cache, dataset: Dataset, samples: Sequence[Sample]) -> dict[str, tuple[MediaFile, str]]:
    """A few random media that are here, others each time: name → file and digest. Raises MediaError: there is none."""
    names = list(dict.fromkeys(sample.media for sample in samples))
    media: dict[str, tuple[MediaFile, str]] = {}
    for name in random.sample(names, min(len(names), _LOOKED_FOR)):
        with suppress(MediaError):
            file = dataset.locate(name)
            if digest := cache.media.digest(file) if file.status() else None:
                media[name] = file, digest
        if len(media) == _CHECKED:
            return media
    if not media:
        raise MediaError("the media are not here")
    return media


def _encoder(features: FeatureSet, device: str) -> Encoder:
    """That of the set. Raises MediaError where there is none that would give the same numbers."""
    spec = features.spec
    recorded = {"choice": features.recorded, "encoder": spec.encoder, "preprocessing": spec.preprocessing}
    try:
        encoder = rebuild_encoder(recorded, device, local_only=True)
    except EpalmError as error:
        raise MediaError(f"the encoder is not at hand: {error.message}") from error
    if not would_give(encoder, spec):
        raise MediaError("this version of epalm would give other numbers, and extract into another set")
    return encoder
