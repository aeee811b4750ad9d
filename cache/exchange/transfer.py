"""Feature sets from one cache to another, block by block: verified as they are read, recorded last, resumable.

Either side may be a folder or an object store. A block that is there already is left alone, a damaged one there is
replaced, a damaged one here is refused by name. Rows keep the record of how they were made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from epalm.cache.blocks import DamageError, Record, read_record, read_values, require_size, write_block
from epalm.cache.exchange.claims import checked_recorded, checked_spec, require_manifest
from epalm.cache.exchange.taking_in import require_room, same_place, take_notes
from epalm.cache.feature_set import Fault, FeatureSet
from epalm.cache.lacking import lacking_views
from epalm.cache.ledger import Entry
from epalm.cache.manifest import Manifest, read_manifests
from epalm.cache.objects.base import MissingObjectError
from epalm.cache.store import Cache
from epalm.console import progress
from epalm.errors import UsageError

_AT_ONCE = 8  # blocks on their way
_MB = 10**6
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What there is to copy: `blocks` of `source`, of which those in `replaced` are there, but damaged.

    `there` blocks need no copy; `held` is what the other side has, view → digests; `faults` are records of the source
    that cannot be read.
    """

    source: FeatureSet
    target: Cache
    blocks: tuple[Record, ...]
    replaced: frozenset[str]
    there: int
    held: Mapping[int, set[str]]
    manifests: tuple[Manifest, ...]
    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]

    @property
    def bytes(self) -> int:
        """Of the values to copy, at most."""
        return sum(record.bytes for record in self.blocks)


@dataclass(frozen=True, slots=True)
class Transferred:
    """What was copied, and which blocks of the source were refused."""

    features: FeatureSet
    blocks: int
    bytes: int
    faults: tuple[Fault, ...]


def plan_transfer(source: FeatureSet, target: Cache) -> Transfer:
    """What a set on the other side lacks; nothing is written.

    Raises:
        UsageError: both are one cache.
        CacheError: the target has another set of that name, or one of the sides cannot be read.
    """
    if same_place(source.objects, target.objects.below(f"sets/{source.name}")):
        raise UsageError(f"{source.where} is where it would be copied to", hint="give another cache")
    checked_spec(source.spec.to_json(), f"{source.where}/spec.json")
    checked_recorded(source.recorded, f"{source.where}/recorded.json")
    manifests = tuple(require_manifest(one, f"{source.where}/manifests") for one in read_manifests(source.objects))
    records, faults = _survey(source, sizes=False)
    existing = target.existing(source.spec)
    whole, broken = _survey(existing, sizes=True) if existing else ([], [])
    held: dict[int, set[str]] = {}
    for record in whole:
        for view in record.views:
            held.setdefault(view, set()).update(record.rows)
    blocks = tuple(record for record in records if lacking_views(record.rows, record.views, held))
    return Transfer(
        source=source,
        target=target,
        blocks=blocks,
        replaced=frozenset(fault.block for fault in broken) & {record.block for record in blocks},
        there=len(records) - len(blocks),
        held=held,
        manifests=manifests,
        entries=(*source.ledger.entries(), *source.ledger.warnings()),
        faults=tuple(faults),
    )


def run_transfer(plan: Transfer, name: str) -> Transferred:
    """Copy what a plan says, several blocks at a time; `name` is what the bar says.

    A kill at any moment leaves blocks that are whole: the same plan, made again, goes on from them.

    Raises:
        CacheError: a side fails, or the other one has too little room; what is committed stays.
    """
    source, target = plan.source, plan.target
    require_room(plan.bytes, target.objects.free_bytes(), target.where)
    existing = target.existing(source.spec)
    features = target.feature_set(source.spec, recorded=existing.recorded if existing else source.recorded)
    faults, copied, done = list(plan.faults), 0, 0
    with progress(f"{name} {source.name}", max(1, plan.bytes // _MB), "MB") as advance:
        for record, fault in _each(lambda record: _copy(plan, features, record), plan.blocks):
            if fault:
                faults.append(fault)
            else:
                copied += 1
                advance((done + record.bytes) // _MB - done // _MB)
                done += record.bytes
    take_notes(features, plan.manifests, plan.entries)
    return Transferred(features, copied, done, tuple(faults))


def _copy(plan: Transfer, features: FeatureSet, record: Record) -> tuple[Record, Fault | None]:
    try:
        values = read_values(plan.source.objects, record)
    except (DamageError, MissingObjectError) as error:
        return record, Fault(record.block, error.message, record)
    if record.block in plan.replaced:
        features.drop(record.block)
    for views, places in lacking_views(record.rows, record.views, plan.held).items():
        columns = [record.views.index(view) for view in views]
        whole = len(places) == len(record.rows) and views == record.views
        part = values if whole else values[np.ix_(places, columns)]
        write_block(features.objects, [record.rows[place] for place in places], views, part, record.written)
    return record, None


def _survey(features: FeatureSet, *, sizes: bool) -> tuple[list[Record], list[Fault]]:
    """A set's records that fit it, and the faults of the others; with `sizes`, of those whose chunk is not as long."""

    def look(block: str) -> Record | Fault:
        record = None
        try:
            record = read_record(features.objects, block)
            features.require_fit(record)
            if sizes:
                require_size(features.objects, record)
        except (DamageError, MissingObjectError) as error:
            return Fault(block, error.message, record)
        return record

    found = list(_each(look, features.block_names()))
    records = [one for one in found if isinstance(one, Record)]
    return sorted(records, key=lambda record: record.block), [one for one in found if isinstance(one, Fault)]


def _each(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of several threads as they come; the first error ends what has not begun."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for future in as_completed([pool.submit(work, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
