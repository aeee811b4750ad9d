"""Collecting what nothing needs: leftovers, folders that never became a set, blocks held twice, sets without users.

Finding and deleting are apart, so that what would be deleted can be shown. Nothing is found that was written, or is in
a set that was used, within the grace period. Knows marks of runs; looks into no run folder itself.
"""

import socket
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from epalm.cache.blocks import BLOCKS, RECORDS, Record, read_block
from epalm.cache.care.sweep import GRACE, delete_leftovers, is_draft, leftovers
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import MANIFESTS
from epalm.cache.objects.base import Objects, Stored
from epalm.cache.reader import RowIndex
from epalm.cache.store import SETS, Cache, last_used, unread_marks, uses
from epalm.errors import CacheError


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something to delete: the folder below the cache's root that it lies in, what it is, and its size in bytes.

    One of `objects` (keys below that folder), `block` (a record there), `empty` (folders of blocks) or none of them
    (the folder itself).
    """

    folder: str
    what: str
    bytes: int
    objects: tuple[Stored, ...] = ()
    block: str | None = None
    empty: tuple[str, ...] = ()


def find_garbage(
    cache: Cache, *, grace: float = GRACE, unused: bool = False, runs: Mapping[str, Collection[str]] | None = None
) -> list[Garbage]:
    """What may be deleted; with `unused`, also sets that no run uses.

    `grace` is in seconds; `runs` names for each set the runs that are known to use it, beside those that marked it.

    Raises:
        CacheError: the storage cannot be read.
    """
    before = time.time() - grace
    walked = _walk(cache.objects)
    found = _leftovers("", [one for one in walked.pop("", []) if is_draft(one) and one.modified < before])
    known = set(cache.set_names())
    for name in cache.folder_names():
        folder, objects = f"{SETS}/{name}", walked.get(name, [])
        size = sum(one.bytes for one in objects)
        if name not in known:
            if all(one.modified < before for one in objects) and _old(cache.objects, folder, before):
                found.append(Garbage(folder, "a folder that never became a feature set", size))
        elif unused and _unused(cache, name, objects, before, (runs or {}).get(name, ())):
            found.append(Garbage(folder, "a feature set that no run uses", size))
        else:
            below = cache.objects.below(folder)
            found += _leftovers(folder, list(leftovers(below, grace=grace, walked=objects)))
            found += _superseded(cache, name, objects, before)
            if empty := _empty_blocks(below, before):
                found.append(Garbage(folder, "empty folders of blocks", 0, empty=empty))
    return found


def collect(cache: Cache, garbage: Sequence[Garbage]) -> int:
    """Delete what `find_garbage` found; how many bytes that freed. Raises CacheError when the storage refuses."""
    return sum(_delete(cache, one) for one in garbage)


def superseded(records: Sequence[Record]) -> list[tuple[Record, list[Record]]]:
    """Blocks all of whose rows and views others hold, the smaller ones first, each with those that hold them."""
    if not RowIndex(records).repeated:
        return []
    held = Counter((row, view) for record in records for row in record.rows for view in record.views)
    kept, dropped = {record.block: record for record in records}, []
    for record in sorted(records, key=lambda record: (record.bytes, record.block)):
        pairs = [(row, view) for row in record.rows for view in record.views]
        if all(held[pair] > 1 for pair in pairs):
            held.subtract(pairs)
            del kept[record.block]
            dropped.append(record)
    return [(record, _holders(record, kept.values())) for record in dropped]


def _holders(record: Record, others: Collection[Record]) -> list[Record]:
    rows, views = set(record.rows), set(record.views)
    return [one for one in others if not rows.isdisjoint(one.rows) and not views.isdisjoint(one.views)]


def _superseded(cache: Cache, name: str, objects: Sequence[Stored], before: float) -> list[Garbage]:
    """Old blocks that whole others hold; none in a set that was used of late, as it may be about to be read."""
    try:
        features = cache.load(name)
        records = features.records()
    except CacheError:  # `verify` names what is damaged
        return []
    if (last_used(features.objects) or 0.0) >= before:
        return []
    found, whole = [], dict[str, bool]()
    modified = {one.key: one.modified for one in objects}
    for record, holders in superseded(records):
        old = modified.get(Record.key(record.block), before) < before
        if old and all(_is_whole(features, one, whole) for one in holders):
            size = sum(one.bytes for one in objects if one.key.startswith(f"{BLOCKS}/{record.folder}/"))
            what = f"block {record.block}, whose rows are all in other blocks"
            found.append(Garbage(f"{SETS}/{name}", what, size, block=record.block))
    return found


def _is_whole(features: FeatureSet, record: Record, known: dict[str, bool]) -> bool:
    if record.block not in known:
        known[record.block] = False
        with suppress(CacheError):
            read_block(features.objects, record)
            known[record.block] = True
    return known[record.block]


def _unused(cache: Cache, name: str, objects: Sequence[Stored], before: float, runs: Collection[str]) -> bool:
    """Whether no run needs a set, and nobody has touched it of late. A damaged one is left for `verify` to name."""
    below = cache.objects.below(f"{SETS}/{name}")
    try:
        FeatureSet.load(below, name)
    except CacheError:
        return False
    here = socket.gethostname()
    # Whether a run folder of another machine is still there cannot be seen from here.
    marked = any(use.host != here or Path(use.run).exists() for use in uses(below)) or unread_marks(below) > 0
    recent = max([last_used(below) or 0.0, *(one.modified for one in objects)]) >= before
    return not (runs or marked or recent)


def _leftovers(folder: str, objects: Sequence[Stored]) -> list[Garbage]:
    if not objects:
        return []
    what = "left over by killed processes"
    return [Garbage(folder, what, sum(one.bytes for one in objects), objects=tuple(objects))]


def _empty_blocks(objects: Objects, before: float) -> tuple[str, ...]:
    """Folders of blocks with nothing in them, on a disk: an object store has no folders."""
    blocks = objects.path(BLOCKS)
    if blocks is None or not blocks.is_dir():
        return ()
    folders = [path for path in blocks.iterdir() if path.is_dir() and not any(path.iterdir())]
    return tuple(sorted(path.name for path in folders if path.stat().st_mtime < before))


def _old(objects: Objects, folder: str, before: float) -> bool:
    """Whether a folder, as far as it is one on a disk, has not been changed of late."""
    path = objects.path(folder)
    return path is None or not path.exists() or path.stat().st_mtime < before


def _walk(objects: Objects) -> dict[str, list[Stored]]:
    """Everything in the cache: by set, with keys below the set's folder, and what is in no set under ""."""
    found: dict[str, list[Stored]] = {}
    for one in objects.walk():
        parts = one.key.split("/", 2)
        if parts[0] == SETS and len(parts) == 3:
            found.setdefault(parts[1], []).append(Stored(parts[2], one.bytes, one.modified))
        else:
            found.setdefault("", []).append(one)
    return found


def _delete(cache: Cache, garbage: Garbage) -> int:
    below = cache.objects.below(garbage.folder) if garbage.folder else cache.objects
    if garbage.objects:
        return delete_leftovers(below, garbage.objects)
    if garbage.block:
        return garbage.bytes if _drop_superseded(cache, garbage) else 0
    if garbage.empty:
        for name in garbage.empty:
            path = below.path(f"{BLOCKS}/{name}")
            if path:
                with suppress(OSError):  # a file has just been put into it
                    path.rmdir()
        return 0
    cache.forget(garbage.folder.removeprefix(f"{SETS}/"))
    for part in (MANIFESTS, RECORDS, BLOCKS):  # in this order, so that what a kill leaves is a smaller set, or none
        cache.objects.delete_below(f"{garbage.folder}/{part}")
    cache.objects.delete_below(garbage.folder)
    return garbage.bytes


def _drop_superseded(cache: Cache, garbage: Garbage) -> bool:
    """Drop a block unless another process has meanwhile dropped one that holds its rows."""
    features = cache.load(garbage.folder.removeprefix(f"{SETS}/"))
    if garbage.block not in {record.block for record, _ in superseded(features.records())}:
        return False
    features.drop(garbage.block)
    return True
