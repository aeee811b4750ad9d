"""Where a sample's features come from, as training and decoding see it.

Letters: B batch, K perceptual tokens, D_enc encoder width.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.datasets.paths import MediaRoot
from epalm.errors import MediaError, UsageError
from epalm.media import MediaFile
from epalm.samples import Dataset, Sample

_NAMED = 5  # media named in a message; the rest is counted


class FeatureSource(Protocol):
    """Features of samples, from the cache or from an encoder."""

    layers: int
    width: int

    def gather(self, samples: Sequence[Sample], *, epoch: int = 0) -> np.ndarray:
        """Features (B, layers, D_enc)."""
        ...

    def describe(self) -> dict[str, Any]:
        """What decides the numbers, as JSON: "source", "encoder", "layers", "preprocessing"; "choice" rebuilds it."""
        ...


class CachedFeatures:
    """Rows of one feature set; media are found by the digest of their bytes."""

    def __init__(self, features: FeatureSet, cache: Cache, dataset: Dataset, samples: Sequence[Sample]) -> None:
        self._features = features
        self._reader = features.open()
        self.layers, self.width = self._reader.shape[2:]
        self._rows, self.holes = self._find(cache, dataset, samples)

    def gather(self, samples: Sequence[Sample], *, epoch: int = 0) -> np.ndarray:
        """Features (B, layers, D_enc) of view 0, the only one there is, in the stored dtype."""
        rows = np.fromiter((self._rows[sample.media] for sample in samples), np.int64, len(samples))
        return self._reader.gather(rows)

    def describe(self) -> dict[str, Any]:
        """See `FeatureSource`."""
        spec, recorded = self._features.spec, self._features.recorded
        return {
            "source": "cache",
            "set": self._features.name,
            "fingerprint": spec.fingerprint,
            "encoder": dict(spec.encoder),
            "layers": list(spec.layers),
            "preprocessing": dict(spec.preprocessing),
            "choice": recorded if "encoder" in recorded else None,
        }

    def without_holes(self, samples: Sequence[Sample], *, allow_missing: int = 0) -> tuple[Sample, ...]:
        """The samples whose media have a row.

        Raises:
            UsageError: more than `allow_missing` media have none; the message names them, with the reason.
        """
        media = list(dict.fromkeys(sample.media for sample in samples if sample.media in self.holes))
        if len(media) > allow_missing:
            named = "; ".join(f"{name}: {self.holes[name]}" for name in media[:_NAMED])
            rest = f"; and {len(media) - _NAMED} more" if len(media) > _NAMED else ""
            raise UsageError(
                f"{len(media)} media have no row in {self._features.name}: {named}{rest}",
                hint=f"run epalm extract on this data, or go on without them: --allow-missing {len(media)}",
            )
        return tuple(sample for sample in samples if sample.media not in self.holes)

    def _find(self, cache: Cache, dataset: Dataset, samples: Sequence[Sample]) -> tuple[dict[str, int], dict[str, str]]:
        """Row number of each medium, and why the others have none."""
        names = list(dict.fromkeys(sample.media for sample in samples))
        noted = {entry.media: entry.error for entry in self._features.ledger.entries()}
        root = MediaRoot(dataset.root)
        files, holes = {}, {}
        for name in names:
            try:
                files[name] = MediaFile(root.locate(name))
            except MediaError as error:
                holes[name] = noted.get(name, error.message)
        rows = {}
        for name, digest in zip(files, cache.media.digests(list(files.values())), strict=True):
            row = self._reader.row_of(digest) if digest else None
            if row is not None:
                rows[name] = row
            else:
                holes[name] = noted.get(name, "not extracted yet" if digest else "the file is missing or unreadable")
        return rows, holes
