"""Feature sets from one cache to another, block by block: verified as they are read, recorded last, resumable.

Either side may be a folder or an object store. A block that is there already is left alone, a damaged one there is
replaced, a damaged one here is refused by name. Rows keep the record of how they were made.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from epalm.cache.blocks import DamageError, Fault, Record, missing_parts, read_values, write_block
from epalm.cache.exchange.claims import checked
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Entry, Manifest, read_manifests, write_manifest
from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.objects.durable import require_room
from epalm.cache.store import SETS, Cache, LatestExtraction, touch
from epalm.console import progress
from epalm.errors import CacheError, UsageError

_AT_ONCE = 8  # blocks on their way
ROOM = "free space (epalm cache gc), or choose another place"


@dataclass(frozen=True, slots=True)
class Transfer:
    """What there is to copy, or was copied: `blocks` of `source`, of which those in `replaced` are there, but damaged
    (block → its record there, None where that is damaged).

    `there` blocks need no copy; `held` is what the other side has, view → digests; `faults` are records of the source
    that cannot be read.
    """

    source: FeatureSet
    target: Cache
    blocks: tuple[Record, ...]
    replaced: Mapping[str, Record | None]
    there: int
    held: Mapping[int, set[str]]
    manifests: tuple[Manifest, ...]
    faults: tuple[Fault, ...]

    @property
    def bytes(self) -> int:
        """Of the values to copy, at most."""
        return sum(record.bytes for record in self.blocks)


def plan_transfer(source: FeatureSet, target: Cache) -> Transfer:
    """What a set on the other side lacks; nothing is written.

    Raises:
        UsageError: both are one cache.
        CacheError: the target has another set of that name, or one of the sides cannot be read.
    """
    if _place(source.objects) == _place(target.objects.below(f"{SETS}/{source.name}")):
        raise UsageError(f"{source.where} is where it would be copied to", hint="give another cache")
    manifests = tuple(read_manifests(source.objects))
    records, faults = _survey(source, sizes=False)
    digests = {row for record in records for row in record.rows}
    checked(source.where, source.spec.to_json(), source.recorded, manifests, list(digests))
    existing = target.existing(source.spec)
    whole, broken = _survey(existing, sizes=True) if existing else ([], [])
    held: dict[int, set[str]] = {}
    for record in whole:
        for view in record.views:
            held.setdefault(view, set()).update(record.rows)
    blocks = tuple(
        record for record in records if not all(held.get(view, set()).issuperset(record.rows) for view in record.views)
    )
    names = {record.block for record in blocks}
    replaced = {fault.block: fault.record for fault in broken if fault.block in names}
    return Transfer(source, target, blocks, replaced, len(records) - len(blocks), held, manifests, tuple(faults))


def run_transfer(plan: Transfer, name: str) -> Transfer:
    """Copy what a plan says, several blocks at a time; `name` is what the bar says.

    Gives the plan again with the blocks that were copied, and with the faults of those that were refused. A kill at any
    moment leaves blocks that are whole: the same plan, made again, goes on from them.

    Raises:
        CacheError: a side fails, or the other one has too little room; what is committed stays.
    """
    source, target = plan.source, plan.target
    require_room(plan.bytes, target.objects.free_bytes(), target.where, ROOM)
    existing = target.existing(source.spec)
    features = target.feature_set(source.spec, recorded=existing.recorded if existing else source.recorded)
    faults, copied = list(plan.faults), []
    bar = progress(f"{name} {source.name}", len(plan.blocks), "blocks")
    with bar as advance, ThreadPoolExecutor(_AT_ONCE) as pool:
        for record, fault in pool.map(lambda record: (record, _copy(plan, features, record)), plan.blocks):
            if fault:
                faults.append(fault)
            else:
                copied.append(record)
            advance()
    add_names(features, plan.manifests, (*source.ledger.entries(), *source.ledger.entries(warning=True)))
    return replace(plan, blocks=tuple(copied), faults=tuple(faults))


def _copy(plan: Transfer, features: FeatureSet, record: Record) -> Fault | None:
    """Write what the other side lacks of a block, in parts where its rows lack different views."""
    try:
        values = read_values(plan.source.objects, record)
    except (DamageError, MissingObjectError) as error:
        return Fault(record.block, error.message, record)
    if record.block in plan.replaced:
        features.drop(record.block, plan.replaced[record.block])
    for digests, views, part in missing_parts(record.rows, record.views, values, plan.held):
        write_block(features.objects, digests, views, part, record.written)
    return None


def add_names(features: FeatureSet, manifests: Iterable[Manifest], entries: Sequence[Entry] = ()) -> None:
    """Add names of media and lines of a ledger to a set's own; of one name in one data set, the new digest counts.

    Two processes that add to one data set's names at once, into an object store, may leave those of one of them.
    """
    with features.objects.lock("notes"):
        known = {manifest.data: manifest.digests for manifest in read_manifests(features.objects)}
        for data, digests in ((manifest.data, manifest.digests) for manifest in manifests):
            write_manifest(features.objects, Manifest(data, {**known.get(data, {}), **digests}))
        there = (*features.ledger.entries(), *features.ledger.entries(warning=True))
        noted = {(entry.media, entry.digest, entry.warning) for entry in there}
        features.ledger.add_all(one for one in entries if (one.media, one.digest, one.warning) not in noted)
    touch(features.objects)


def note_latest(
    cache: Cache, features: FeatureSet, other: Cache | None = None, *, keep: bool = False
) -> LatestExtraction | None:
    """Remember a set that arrived as the latest extraction, so that training finds it; what was noted.

    Layers, tokens and data set are those of the other cache's latest extraction, where it worked on this set, else all,
    and the one whose
    manifest has the most media; nothing is noted where there is none, or with `keep` where one is noted.
    """
    modality, manifests = features.spec.modality, read_manifests(features.objects)
    layers, tokens = features.spec.layers, None
    data = max(manifests, key=lambda one: len(one.digests)).data if manifests else None
    with suppress(CacheError):  # there is none
        if keep and cache.latest(modality):
            return None
    latest = other.latest_of(features) if other else None
    if latest and set(latest.layers) <= set(layers):
        data, layers, tokens = latest.data, latest.layers, latest.tokens
    if not isinstance(data, str):
        return None
    cache.remember(modality, features.name, layers, data, tokens)
    return cache.latest(modality)


def _place(objects: Objects) -> str:
    """The same for two roots that are one."""
    path = objects.path("")
    return str(path.resolve()) if path else objects.where.rstrip("/")


def _survey(features: FeatureSet, *, sizes: bool) -> tuple[list[Record], list[Fault]]:
    """As `FeatureSet.sound_records`. Raises CacheError where the storage would not give a record."""
    records, faults = features.sound_records(sizes=sizes)
    for fault in faults:
        if not fault.damaged:
            raise CacheError(fault.error)
    return records, faults
