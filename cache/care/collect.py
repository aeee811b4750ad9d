"""Collecting what nothing needs: leftovers of killed processes, folders that never became a set, sets without users.

Finding and deleting are apart, so that what would be deleted can be shown. Nothing is found that was written, or is in
a set that was used, within the grace period, and nothing that this program does not write itself: a cache may lie in a
folder that holds other things, too. Knows marks of runs; looks into no run folder itself.
"""

import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from epalm.cache.blocks import BLOCKS, RECORDS, read_record
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import MANIFESTS
from epalm.cache.objects.base import Objects, Stored
from epalm.cache.store import LATEST, SETS, Cache, last_used, uses
from epalm.errors import CacheError

GRACE = 24 * 3600.0  # seconds: whoever writes a block is done with it by then
_SET = re.compile(r"[a-z]+-[a-z0-9-]*-[0-9a-f]{12}")  # as sets are named
_FOLDER = r"[0-9a-f]{16}-[0-9a-f]{8}"  # of a block, as `write_block` names it
_DRAFT = re.compile(r"(^|/)\.([^/]+)\.[0-9a-f]{8}$")  # as durable files are called until they are whole
_WRITTEN = re.compile(  # all that is put into a set's folder, and where extractions are noted
    r"(zarr|spec|recorded|used)\.json|ledger\.jsonl(\.d/[^/]+)?|\.[a-z.]+\.lock"
    rf"|blocks/(zarr\.json|{_FOLDER}/(zarr\.json|c(\.0)+))"
    rf"|(records|manifests|uses)/[0-9a-f]{{16}}\.jsonl?|{LATEST}/[a-z]+\.json"
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something to delete: its folder below the cache's root, what it is, its size in bytes, and how."""

    folder: str
    what: str
    bytes: int
    delete: Callable[[], object]


def find_garbage(
    cache: Cache, *, grace: float = GRACE, unused: bool = False, runs: Mapping[str, Collection[str]] | None = None
) -> list[Garbage]:
    """What may be deleted; with `unused`, also sets that no run uses.

    `grace` is in seconds; `runs` names for each set the runs that are known to use it, beside those that marked it.

    Raises:
        CacheError: the storage cannot be read.
    """
    before = time.time() - grace
    walked: dict[str, list[Stored]] = {}  # set → its objects, by keys below its folder
    for one in cache.objects.below(SETS).walk():
        name, _, key = one.key.partition("/")
        if key and _SET.fullmatch(name):
            walked.setdefault(name, []).append(Stored(key, one.bytes, one.modified))
    notes = [Stored(f"{LATEST}/{one.key}", one.bytes, one.modified) for one in cache.objects.below(LATEST).walk()]
    garbage, known = _left_over("", cache.objects, grace, notes), set(cache.set_names())
    for name, objects in walked.items():
        folder = f"{SETS}/{name}"
        below = cache.objects.below(folder)
        old = all(one.modified < before for one in objects)
        what = ""
        if old and name not in known and all(map(_is_written, objects)):
            what = "a folder that never became a feature set"
        elif old and unused and name in known and _is_unused(below, name, before, (runs or {}).get(name, ())):
            what = "a feature set that no run uses"
        if what:
            size = sum(one.bytes for one in objects)
            garbage.append(Garbage(folder, what, size, partial(_delete_set, cache, name)))
        else:
            garbage += _left_over(folder, below, grace, objects)
    return garbage


def users_of(objects: Objects, runs: Iterable[str] = ()) -> list[str]:
    """The runs that use a set: these, and those that have marked it, with their machine where it is another.

    A mark of this machine counts while the run's folder is there; whether one of another is cannot be seen from here.
    """
    here = socket.gethostname()
    marks = [(host, run) for host, run in uses(objects) if host != here or Path(run).exists()]
    marked = [run if host == here else f"{host}:{run}" for host, run in marks]
    return list(dict.fromkeys([*runs, *marked]))


def leftovers(objects: Objects, *, grace: float = GRACE, walked: Iterable[Stored] | None = None) -> list[Stored]:
    """Drafts and blocks without a record, which nothing reads, where they are older than `grace` seconds.

    A block whose record is damaged is not one of them: `verify` names it first. `walked` is what a walk over
    `objects` has found, where one was done already.
    """
    before = time.time() - grace
    every = list(objects.walk() if walked is None else walked)  # before the records: a block comes first
    old = [one for one in every if one.modified < before]
    folders = set(map(_folder, every)) - {""}
    loose = folders - _folders_in_use(objects, folders)
    return [one for one in old if _is_draft(one) or _folder(one) in loose]


def delete_all(objects: Objects, left: Collection[Stored]) -> None:
    """Delete leftovers, and the folders of blocks that are empty then."""
    for one in left:
        objects.delete(one.key)
    for folder in set(map(_folder, left)) - {""}:
        if not objects.names(f"{BLOCKS}/{folder}"):
            objects.delete_below(f"{BLOCKS}/{folder}")


def _left_over(folder: str, objects: Objects, grace: float, walked: Iterable[Stored]) -> list[Garbage]:
    left = leftovers(objects, grace=grace, walked=walked)
    size = sum(one.bytes for one in left)
    return [Garbage(folder, "left over by killed processes", size, partial(delete_all, objects, left))] if left else []


def _is_draft(one: Stored) -> bool:
    return bool(_DRAFT.search(one.key)) and _is_written(one)


def _is_written(one: Stored) -> bool:
    """Whether this program writes an object of that key, or its draft."""
    return bool(_WRITTEN.fullmatch(_DRAFT.sub(r"\1\2", one.key)))


def _folder(one: Stored) -> str:
    """Name of the block's folder that an object lies in; "" for another object."""
    parts = one.key.split("/")
    return parts[1] if parts[0] == BLOCKS and _is_written(one) and len(parts) > 2 else ""


def _folders_in_use(objects: Objects, folders: Iterable[str]) -> set[str]:
    """Which of these folders (block-writer) a record names; it is read only where its block has several."""
    candidates: dict[str, set[str]] = {}
    for folder in folders:
        candidates.setdefault(folder.rpartition("-")[0], set()).add(folder)
    used = set[str]()
    for name in objects.names(RECORDS):
        block = name.removesuffix(".json")
        mine = candidates.get(block, set())
        with suppress(CacheError):  # damaged: any of them may be the block's
            mine = {read_record(objects, block).folder} if len(mine) > 1 else mine
        used |= mine
    return used


def _is_unused(objects: Objects, name: str, before: float, runs: Collection[str]) -> bool:
    """Whether no run needs a set, and none has read it of late. A damaged one is left for `verify` to name."""
    try:
        FeatureSet.load(objects, name)
    except CacheError:
        return False
    return not (users_of(objects, runs) or (last_used(objects) or 0.0) >= before)


def _delete_set(cache: Cache, name: str) -> None:
    cache.forget(name)
    folder = f"{SETS}/{name}"
    for part in (MANIFESTS, RECORDS, BLOCKS):  # in this order, so that what a kill leaves is a smaller set, or none
        cache.objects.delete_below(f"{folder}/{part}")
    cache.objects.delete_below(folder)
