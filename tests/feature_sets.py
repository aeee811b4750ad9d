"""Feature sets with rows of several views, and what is in them: for tests that move them about."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Manifest, write_manifest
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from tests.test_cache_feature_set import SPEC

DATA = "samples.jsonl"
Rows = dict[tuple[str, int], bytes]  # (digest, view) → values


@dataclass(frozen=True)
class Block:
    """Media by number, and their views."""

    media: Sequence[int]
    views: tuple[int, ...] = (0,)


def digest(medium: object) -> str:
    return hashlib.sha256(str(medium).encode()).hexdigest()


def make_set(root: str | Path, blocks: Sequence[Block], spec: FeatureSpec = SPEC, *, data: str = DATA) -> FeatureSet:
    """A set with these blocks, its media named in a manifest, and one bad medium in its ledger."""
    features = Cache(root).feature_set(spec, recorded={"torch": "2", "encoder": "{}"})
    for number, block in enumerate(blocks):
        rng = np.random.default_rng(number)
        shape = (len(block.media), len(block.views), len(spec.layers), spec.width)
        values = rng.normal(size=shape).astype(spec.stored_dtype)
        features.write_block([digest(medium) for medium in block.media], values, block.views)
    media = sorted({medium for block in blocks for medium in block.media})
    write_manifest(features.objects, Manifest(data, {f"{medium}.png": digest(medium) for medium in media}))
    features.ledger.add(media="torn.png", digest=digest("torn"), error="it is torn", hint=None)
    return features


def contents(features: FeatureSet) -> Rows:
    """Every row, as a reader gives it."""
    reader = features.open()
    rows: Rows = {}
    for view in features.views():
        for name in reader.digests:
            row = reader.row_of(name)
            assert row is not None
            if reader.has(row, view=view):
                rows[name, view] = reader.gather(np.array([row]), view=view).tobytes()
    return rows


def stored_twice(features: FeatureSet) -> int:
    """How many (medium, view) lie in more than one block."""
    every = [(row, view) for record in features.records() for row in record.rows for view in record.views]
    return len(every) - len(set(every))


def wider(spec: FeatureSpec = SPEC) -> FeatureSpec:
    """Another set with the same kind of name."""
    return replace(spec, stored_dtype="float32")
