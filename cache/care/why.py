"""Why something was encoded, or was not: what differs between feature sets, and where the rows of a medium are.

Compares what sets say of themselves; knows no models and opens no medium.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import Manifest, read_manifests
from epalm.cache.spec import FeatureSpec
from epalm.differences import SHOWN_DIGITS, change_in_words, differing_leaves

# What a spec's fields are called where their names do not say it.
_WORDS = {
    "encoder.kind": "encoder",
    "encoder.weights": "weights",
    "encoder.token": "token rule",
    "compute.precision": "precision of the encoder",
    "compute.weights": "precision of the weights",
    "augmentation": "augmentation of views",
    "augmentation.seed": "seed of views",
    "stored_dtype": "stored dtype",
}
_CHOICE = "encoder"  # beside the versions in what an extraction records


def differences(one: FeatureSpec, other: FeatureSpec) -> list[str]:
    """Which inputs differ, each as "preprocessing.size 224 → 384": first `one`'s, then `other`'s."""
    words = {**_WORDS, "version": f"version of the {other.modality} extraction code"}
    leaves = differing_leaves(one.to_json(), other.to_json())
    return [f"{words.get(name, name)} {change_in_words(was, now)}" for name, was, now in leaves]


def nearest(spec: FeatureSpec, sets: Iterable[FeatureSet]) -> FeatureSet | None:
    """The set with the fewest inputs that differ; of equals the first. None when there is no other than its own."""
    others = [features for features in sets if features.spec != spec]
    return min(others, key=lambda features: len(differences(features.spec, spec)), default=None)


def nearest_difference(spec: FeatureSpec, sets: Iterable[FeatureSet]) -> list[str]:
    """Which inputs changed from the nearest of the sets to `spec`; none when there is no other set."""
    other = nearest(spec, sets)
    return differences(other.spec, spec) if other else []


def library_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which recorded versions differ, each as "torch 2.5 → 2.6"."""
    names = [name for name in dict.fromkeys([*one, *other]) if name != _CHOICE]
    changes = [(name, one.get(name), other.get(name)) for name in names]
    return [f"{name} {change_in_words(was, now)}" for name, was, now in changes if was != now]


def versions_of_blocks(features: FeatureSet) -> list[tuple[dict[str, str], int]]:
    """The library versions that the set's blocks were made with, and how many with each, the latest first.

    Raises:
        CacheError: a record is damaged.
    """
    records = sorted(features.records(), key=lambda record: record.time or 0.0, reverse=True)
    counts = Counter(tuple(record.versions.items()) for record in records)
    return [(dict(versions), count) for versions, count in counts.items()]


def reason_without_row(features: FeatureSet, digest: str | None, *, path: str, before: str | None = None) -> str:
    """Why a set has no row of a medium that lies at `path` (absolute, POSIX).

    `digest` is of its bytes, None when there is no such file; `before` of what the file held at an earlier time.

    Raises:
        CacheError: a record or a manifest is damaged.
    """
    entries = features.ledger.entries()
    if error := next((entry.error for entry in entries if digest and entry.digest == digest), None):
        return f"it is in the ledger: {error}"
    rows = features.rows()
    if before and before != digest and before in rows:
        return f"the file's bytes have changed: the row is of what it held before (digest {before[:SHOWN_DIGITS]})"
    for manifest, name in _named(read_manifests(features.objects), path):
        then = manifest.digests[name]
        if then != digest and then in rows:
            return (
                f"the bytes have changed: when {manifest.data} was extracted, {name} had digest {then[:SHOWN_DIGITS]}, "
                "of which there is a row"
            )
    for entry in entries:
        if entry.digest is None and (path == entry.media or path.endswith(f"/{entry.media}")):
            return f"it is in the ledger: {entry.error}"
    return "it was never extracted into this set"


def _named(manifests: Sequence[Manifest], path: str) -> Iterator[tuple[Manifest, str]]:
    """The manifests that hold a name which the path ends with, and the longest such name of each."""
    parts = path.split("/")
    tails = ["/".join(parts[place:]) for place in range(len(parts))]
    for manifest in manifests:
        if name := next((tail for tail in tails if tail in manifest.digests), None):
            yield manifest, name
