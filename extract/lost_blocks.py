"""Which rows blocks held whose records are damaged or gone: told from the order of data sets, proven by their names.

A block's name is a digest of its rows and views, so a guess can be checked. Knows digests only.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from epalm.cache.blocks import BLOCKS, Record, block_id
from epalm.cache.objects.base import Objects
from epalm.errors import CacheError

Shape = tuple[int, int]  # rows, views
_SEARCHED = 20_000  # media: in more, only every block's length is tried as a beginning


@dataclass(frozen=True, slots=True)
class Run:
    """Rows to encode, in order, with the views of them that are missing; `rows` at a time make a block."""

    digests: tuple[str, ...]
    views: tuple[int, ...]
    rows: int


def left_shape(objects: Objects, block: str) -> Shape | None:
    """How many rows and views a block had, told from what is left of its folder."""
    for folder in objects.names(BLOCKS):
        if folder.startswith(f"{block}-"):
            try:
                shape = json.loads(objects.read(f"{BLOCKS}/{folder}/zarr.json"))["shape"]
                return int(shape[0]), int(shape[1])
            except (CacheError, ValueError, TypeError, KeyError, IndexError):
                continue
    return None


def runs_of_lost(
    lost: Sequence[str],
    names: Mapping[str, Shape | None],
    sequences: Iterable[Sequence[str]],
    records: Sequence[Record],
    held: Mapping[int, Collection[str]],
    *,
    block_rows: int,
) -> list[Run]:
    """What to encode so that no row is missing: the very blocks of `names` where they can be told, then the rest.

    `lost` are media that should have a view 0; `held` is view → media that have it; `sequences` are data sets in
    their order; `records` are those that are whole, `block_rows` is what a block has where they do not say.
    """
    open_names, proven = dict(names), list[Run]()
    ordered = [list(sequence) for sequence in sequences]
    for views in _views(records, open_names):
        for sequence in ordered:
            lacking = [row for row in sequence if any(row not in held.get(view, ()) for view in views)]
            for run in _prove(lacking, views, open_names, _rows(records, views, open_names, block_rows)):
                del open_names[block_id(run.digests, views)]
                proven.append(run)
    done = {row for run in proven if 0 in run.views for row in run.digests}
    place = {row: number for number, row in enumerate(dict.fromkeys(row for part in ordered for row in part))}
    rest = sorted((row for row in lost if row not in done), key=lambda row: place.get(row, len(place)))
    if not rest:
        return proven
    views = _whole_views(records, open_names)
    return [*proven, Run(tuple(rest), views, _rows(records, views, {}, block_rows)[0])]


def _whole_views(records: Sequence[Record], names: Mapping[str, Shape | None]) -> tuple[int, ...]:
    """What a medium without any row gets: the views that blocks with a view 0 usually have."""
    stored = next((views for views in _views(records, {}) if 0 in views), None)
    return stored or tuple(range(max((shape[1] for shape in names.values() if shape), default=1)))


def _prove(
    lacking: Sequence[str], views: tuple[int, ...], names: Collection[str], sizes: Sequence[int]
) -> Iterator[Run]:
    begin = 0
    while begin < len(lacking):
        for size in sizes:
            chunk = tuple(lacking[begin : begin + size])
            if block_id(chunk, views) in names:
                yield Run(chunk, views, len(chunk))
                begin += len(chunk)
                break
        else:
            begin += 1 if len(lacking) <= _SEARCHED else sizes[0]


def _views(records: Sequence[Record], names: Mapping[str, Shape | None]) -> list[tuple[int, ...]]:
    """The views that blocks have together, the commonest first; for `names`, also those that their shapes allow."""
    stored = [views for views, _ in Counter(record.views for record in records).most_common()]
    counts = {shape[1] for shape in names.values() if shape} | ({1} if names else set())
    possible = [views for count in sorted(counts) for views in (tuple(range(count)), tuple(range(1, count + 1)))]
    return list(dict.fromkeys([*stored, *possible]))


def _rows(
    records: Sequence[Record], views: tuple[int, ...], names: Mapping[str, Shape | None], otherwise: int
) -> list[int]:
    """How many rows such blocks have: the usual number first, then those that are left of `names`."""
    usual = max((len(record.rows) for record in records if record.views == views), default=otherwise)
    return list(dict.fromkeys([usual, *(shape[0] for shape in names.values() if shape and shape[0] > 0)]))
