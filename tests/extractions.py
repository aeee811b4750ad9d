"""Extractions by encoders and data sets that tests have built themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epalm.cache.store import Cache
from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool
from epalm.extract.encoders.registry import Encoder, EncoderChoice
from epalm.extract.pipeline import ExtractSummary, execute
from epalm.extract.plan import ExtractionPlan, plan_media
from epalm.extract.request import ExtractRequest
from epalm.extract.stream import encode_each
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality


@dataclass(frozen=True)
class Machine:
    """How the machine is used."""

    batch_size: int = 32
    workers: int | None = None
    block_rows: int = 512
    timeout: float = 120.0


def plan_features(
    dataset: Dataset,
    modality: Modality,
    encoder: Encoder,
    layers: tuple[int, ...],
    cache: Cache,
    /,
    *,
    machine: Machine = Machine(),
    choice: EncoderChoice | None = None,
    **options: Any,
) -> ExtractionPlan:
    """What `extract_features` would do."""
    asked = {"encoder": choice.kind, "weights": choice.weights} if choice else {}
    request = ExtractRequest(modality, dataset.spec, **{"cache": cache.where, **asked, **vars(machine), **options})
    return plan_media(request, dataset, encoder, layers, cache)


def extract_features(*words: Any, **options: Any) -> ExtractSummary:
    """One extraction, of what `plan_features` takes."""
    return execute(plan_features(*words, **options))


def encode_files(files: Sequence[MediaFile], encoder: Encoder, layers: Sequence[int]) -> np.ndarray:
    """View 0 of some files (B, L, T, D) float32. Raises MediaError: one cannot be read."""
    rows = encode_each(files, encoder, layers, DecodePool(encoder.input, 0))
    if faults := [row for row in rows if isinstance(row, MediaError)]:
        raise faults[0]
    return np.stack(rows)  # type: ignore[arg-type]
