"""The feature cache against the disk and memory below it: bytes written, opening, an epoch of random batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import Line, compare
from benchmarks.timing import in_turns
from epalm.cache.feature_set import FeatureSet
from epalm.cache.reader import FeatureReader
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.fingerprint import digest_json

_LAYERS, _WIDTH, _BLOCK, _BATCH = 6, 768, 512, 64  # the paper's rows


def run(root: Path, *, quick: bool) -> list[Line]:
    """Rows of the paper's size: 100,000 of them are 920 MB."""
    blocks, rounds = (4, 1) if quick else (100, 5)
    features = _fill(root / "rows", blocks)
    rows = blocks * _BLOCK
    size = sum(record.bytes for record in features.records())
    stored = sum(one.bytes for one in features.objects.walk())
    lines = [
        Line("bytes stored / bytes of features", *[stored / size] * 3, 1, f"{rows:,} rows, {size / 2**20:,.0f} MiB")
    ]
    opened = in_turns({"open": features.open, "read": lambda: _read_plainly(features)}, rounds=rounds)
    speeds = ", ".join(f"{name} {size / timing.median / 1e6:,.0f} MB/s" for name, timing in opened.items())
    lines.append(compare("plain reading / verified opening", opened["read"], opened["open"], speeds))
    order = np.random.default_rng(0).permutation(rows)
    reader, mapped = (
        features.open(),
        FeatureReader(features.objects, features.records(), features.spec, memory=0),
    )
    memory = np.concatenate([reader.gather(np.arange(first, first + _BLOCK)) for first in range(0, rows, _BLOCK)])
    ways: dict[str, Callable[[], object]] = {
        "in memory": lambda: _epoch(order, reader.gather),
        "mapped": lambda: _epoch(order, mapped.gather),
        "RAM": lambda: _epoch(order, memory.__getitem__),
    }
    epochs = in_turns(ways, rounds=rounds)
    for name in ("in memory", "mapped"):
        note = f"{size / epochs[name].median / 1e6:,.0f} MB/s in batches of {_BATCH}, shuffled"
        lines.append(compare(f"RAM / an epoch {name}", epochs["RAM"], epochs[name], note))
    return lines


def _fill(where: Path, blocks: int) -> FeatureSet:
    spec = FeatureSpec(
        "image", {"kind": "random"}, tuple(range(_LAYERS)), _WIDTH, {}, None, {"precision": "float32"}, "float16", 1
    )
    features = Cache(where).feature_set(spec, recorded={})
    rng = np.random.default_rng(0)
    values = rng.standard_normal((_BLOCK, 1, _LAYERS, 1, _WIDTH), np.float32).astype(np.float16)
    for block in range(blocks):
        digests = [digest_json([block, row]) for row in range(_BLOCK)]
        features.write_block(digests, np.roll(values, block, axis=-1))
    return features


def _read_plainly(features: FeatureSet) -> None:
    """Each block's file into memory, nothing checked."""
    buffer = np.empty(sum(record.bytes + 4 for record in features.records()), np.uint8)
    place = 0
    for record in features.records():
        path = features.objects.path(record.chunk)
        assert path is not None
        with path.open("rb", buffering=0) as file:
            place += file.readinto(memoryview(buffer[place:])) or 0


def _epoch(order: np.ndarray, gather: Callable[[np.ndarray], np.ndarray]) -> None:
    for first in range(0, len(order), _BATCH):
        gather(order[first : first + _BATCH])
