"""Media without a row, which the ledger gives a reason for or whose row was lost, and rows that it warns of.

Knows digests, names and records; opens no medium.
"""

from collections.abc import Collection, Iterable

from epalm.cache.feature_set import FeatureSet
from epalm.cache.ledger import Entry
from epalm.cache.manifest import Manifest, read_manifests


def still_bad(features: FeatureSet) -> list[Entry]:
    """The ledger's entries that still count: neither their content nor what bears their name by now has a row.

    Raises:
        CacheError: a record or a manifest is damaged.
    """
    entries = features.ledger.entries()
    if not entries:
        return []
    rows, named = features.rows(), _digests_of_names(read_manifests(features.objects))
    return [entry for entry in entries if entry.digest not in rows and not _replaced(entry, named, rows)]


def still_warned(features: FeatureSet) -> list[Entry]:
    """The ledger's warnings about contents that have a row. Raises CacheError when a record is damaged."""
    warnings = features.ledger.warnings()
    rows = features.rows() if warnings else set()
    return [entry for entry in warnings if entry.digest in rows]


def count_warned(features: FeatureSet, digests: Iterable[str]) -> int:
    """How many of these have a row that the ledger warns of. Raises CacheError when a record is damaged."""
    warned = {entry.digest for entry in still_warned(features)}
    return sum(digest in warned for digest in digests)


def lost_rows(manifest: Manifest, rows: Collection[str], entries: Iterable[Entry]) -> list[str]:
    """Names of the manifest's media that have neither a row nor an entry in the ledger: a record of theirs is lost."""
    names, digests = {entry.media for entry in entries}, {entry.digest for entry in entries}
    return [
        name
        for name, digest in manifest.digests.items()
        if digest not in rows and digest not in digests and name not in names
    ]


def _digests_of_names(manifests: Iterable[Manifest]) -> dict[str, set[str]]:
    named: dict[str, set[str]] = {}
    for manifest in manifests:
        for name, digest in manifest.digests.items():
            named.setdefault(name, set()).add(digest)
    return named


def _replaced(entry: Entry, named: dict[str, set[str]], rows: Collection[str]) -> bool:
    """Whether all data sets have another content under the entry's name, with a row."""
    now = named.get(entry.media, set())
    return bool(now) and entry.digest not in now and all(digest in rows for digest in now)
