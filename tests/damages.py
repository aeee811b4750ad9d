"""Ways in which a feature set on a disk may be damaged; each leaves blocks of several rows and views broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from epalm.cache import blocks
from epalm.cache.feature_set import FeatureSet


def chunks(features: FeatureSet) -> list[Path]:
    """The files of all blocks' values."""
    return [Path(features.where) / record.chunk for record in features.records()]


def records(features: FeatureSet) -> list[Path]:
    """The files of all commit records."""
    return sorted((Path(features.where) / "records").glob("*.json"))


def missing(features: FeatureSet) -> None:
    chunks(features)[0].unlink()


def folder_gone(features: FeatureSet) -> None:
    shutil.rmtree(chunks(features)[1].parent)


def empty(features: FeatureSet) -> None:
    chunks(features)[0].write_bytes(b"")


def truncated(features: FeatureSet) -> None:
    chunk = chunks(features)[0]
    chunk.write_bytes(chunk.read_bytes()[:-40])


def zero_tailed(features: FeatureSet) -> None:
    chunk = chunks(features)[1]
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-40] + b"\0" * 40)


def bit_flipped(features: FeatureSet) -> None:
    chunk = chunks(features)[0]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)


def checksum_flipped(features: FeatureSet) -> None:
    chunk = chunks(features)[0]
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def swapped(features: FeatureSet) -> None:
    same = [r for r in features.records() if r.shape == features.records()[-1].shape]
    one, other = (Path(features.where) / record.chunk for record in same[:2])
    one.rename(one.with_suffix(".aside"))
    other.rename(one)
    one.with_suffix(".aside").rename(other)


def torn_description(features: FeatureSet) -> None:
    record = features.records()[0]
    (Path(features.where) / "blocks" / record.folder / "zarr.json").write_text('{"shape": [3, ')


def every_block(features: FeatureSet) -> None:
    for chunk in chunks(features):
        chunk.write_bytes(chunk.read_bytes()[::-1])


def not_numbers(features: FeatureSet) -> None:
    record = max(features.records(), key=lambda record: record.bytes)
    values = blocks.read_block(features.objects, record).copy()
    values[1] = np.nan
    features.drop(record.block, record)
    assert blocks.write_block(features.objects, record.rows, record.views, values, record.written)


def torn_record(features: FeatureSet) -> None:
    path = records(features)[0]
    path.write_bytes(path.read_bytes()[:100])


def empty_records(features: FeatureSet) -> None:
    for path in records(features):
        path.write_bytes(b"")


def contradicting_record(features: FeatureSet) -> None:
    path = records(features)[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "bytes": 1}))


def lost_record(features: FeatureSet) -> None:
    records(features)[0].unlink()


def torn_recorded(features: FeatureSet) -> None:
    (Path(features.where) / "recorded.json").write_text('{"torch":')
    chunks(features)[0].write_bytes(b"")


DAMAGES: list[Callable[[FeatureSet], None]] = [
    missing,
    folder_gone,
    empty,
    truncated,
    zero_tailed,
    bit_flipped,
    checksum_flipped,
    swapped,
    torn_description,
    every_block,
    not_numbers,
    torn_record,
    empty_records,
    contradicting_record,
    lost_record,
    torn_recorded,
]
