"""Feature sets with rows of several views, and what is in them: for tests that move them about."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from epalm.cache.blocks import missing_parts
from epalm.cache.exchange.transfer import Transfer, plan_transfer, run_transfer
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry, Manifest, read_manifests, write_manifest
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from tests.cache.test_feature_set import SPEC

DATA = "samples.jsonl"
Rows = dict[tuple[str, int], bytes]  # (digest, view) → values


@dataclass(frozen=True)
class Block:
    """Media by number, and their views."""

    media: Sequence[int]
    views: tuple[int, ...] = (0,)


BLOCKS = (Block(range(5), (0, 1)), Block(range(5, 12)), Block((13, 12)), Block(range(4, 9), (2,)))


def digest(medium: object) -> str:
    return hashlib.sha256(str(medium).encode()).hexdigest()


def make_set(root: str | Path, blocks: Sequence[Block], spec: FeatureSpec = SPEC, *, data: str = DATA) -> FeatureSet:
    """A set with these blocks, less what earlier ones hold; its media in a manifest, a bad medium in its ledger.

    Values are a function of medium and view, as an encoder's are.
    """
    features = Cache(root).feature_set(spec, recorded={"torch": "2", "encoder": "{}"})
    held: dict[int, set[str]] = {}
    for block in blocks:
        digests = [digest(medium) for medium in block.media]
        values = np.array([[_values(medium, view, spec) for view in block.views] for medium in block.media])
        for rows, views, part in missing_parts(digests, block.views, values, held):
            features.write_block(rows, part, views)
            for view in views:
                held.setdefault(view, set()).update(rows)
    media = sorted({medium for block in blocks for medium in block.media})
    write_manifest(features.objects, Manifest(data, {f"{medium}.png": digest(medium) for medium in media}))
    features.ledger.add_all([Entry(media="torn.png", digest=digest("torn"), error="it is torn", hint=None)])
    return features


def _values(medium: int, view: int, spec: FeatureSpec) -> np.ndarray:
    rng = np.random.default_rng([medium, view])
    return rng.normal(size=spec.row_shape).astype(spec.stored_dtype)


def contents(features: FeatureSet) -> Rows:
    """Every row, as a reader gives it."""
    reader = features.open()
    rows: Rows = {}
    for view in features.views():
        held = features.rows(view)
        for row, name in enumerate(reader.digests):
            if name in held:
                rows[name, view] = reader.gather(np.array([row]), view=view).tobytes()
    return rows


def stored_twice(features: FeatureSet) -> int:
    """How many (medium, view) lie in more than one block."""
    every = [(row, view) for record in features.records() for row in record.rows for view in record.views]
    return len(every) - len(set(every))


def stored_bytes(features: FeatureSet) -> int:
    return sum(record.bytes for record in features.records())


def wider(spec: FeatureSpec = SPEC) -> FeatureSpec:
    """Another set with the same kind of name."""
    return replace(spec, stored_dtype="float32")


def move_set(source: FeatureSet, target: Cache) -> Transfer:
    return run_transfer(plan_transfer(source, target), "push")


def require_same(features: FeatureSet, where: str | Path) -> None:
    arrived = Cache(where).load(features.name)
    assert contents(arrived) == contents(features)
    assert stored_twice(arrived) == 0 and arrived.verify() == []
    assert arrived.recorded == features.recorded
    assert read_manifests(arrived.objects) == read_manifests(features.objects)
    assert arrived.ledger.entries() == features.ledger.entries()
