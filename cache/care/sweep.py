"""Leftovers: drafts and blocks without a record, which killed processes leave behind and nothing reads."""

import re
import time
from collections.abc import Iterable, Iterator

from epalm.cache.blocks import BLOCKS, RECORDS, read_record
from epalm.cache.objects.base import Objects, Stored
from epalm.errors import CacheError

GRACE = 24 * 3600.0  # seconds: whoever writes a block is done with it by then
_DRAFT = re.compile(r"(^|/)\.[^/]+\.[0-9a-f]{8}$")  # as durable files are called until they are whole
_FOLDER = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")  # block and writer


def leftovers(objects: Objects, *, grace: float = GRACE, walked: Iterable[Stored] | None = None) -> Iterator[Stored]:
    """Objects of a feature set that nothing refers to and that are older than `grace` seconds.

    A block whose record is damaged is not one of them: `verify` names it first. `walked` is what a walk over
    `objects` has found, where one was done already.
    """
    before = time.time() - grace
    every = list(objects.walk() if walked is None else walked)  # before the records: a block comes first
    old = [one for one in every if one.modified < before]
    kept = _folders_in_use(objects, {_folder(one) for one in every}) if any(map(_folder, old)) else set()
    for one in old:
        if is_draft(one) or (_folder(one) and _folder(one) not in kept):
            yield one


def is_draft(one: Stored) -> bool:
    """Whether an object is one that was never finished, or is being written just now."""
    return _DRAFT.search(one.key) is not None


def sweep_leftovers(objects: Objects, *, grace: float = GRACE) -> int:
    """Delete the leftovers; how many bytes that freed."""
    return delete_leftovers(objects, list(leftovers(objects, grace=grace)))


def delete_leftovers(objects: Objects, found: Iterable[Stored]) -> int:
    """Delete these leftovers, and the folders of blocks that are empty then; how many bytes that freed."""
    freed = 0
    folders = set()
    for one in found:
        objects.delete(one.key)
        freed += one.bytes
        folders.add(_folder(one))
    for folder in filter(None, folders):
        if not objects.names(f"{BLOCKS}/{folder}"):
            objects.delete_below(f"{BLOCKS}/{folder}")
    return freed


def _folder(one: Stored) -> str:
    """Name of the block's folder that an object lies in; "" for another object."""
    parts = one.key.split("/")
    return parts[1] if parts[0] == BLOCKS and len(parts) > 2 else ""


def _folders_in_use(objects: Objects, folders: set[str]) -> set[str]:
    """Which of all these folders a record names; a record is read only where its block has several."""
    candidates: dict[str, set[str]] = {}
    for folder in folders - {""}:
        candidates.setdefault(folder.rpartition("-")[0], set()).add(folder)
    plain = all(_FOLDER.fullmatch(folder) for folder in folders - {""})
    used = set()
    for name in objects.names(RECORDS):
        block = name.removesuffix(".json")
        mine = candidates.get(block, set())
        try:
            used |= mine if plain and len(mine) == 1 else {read_record(objects, block).folder}
        except CacheError:
            used |= mine
    return used
