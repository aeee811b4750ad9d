"""Why something was encoded, or was not: what differs between feature sets, and where the rows of a medium are.

Compares what sets say of themselves; knows no models and opens no medium.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import read_manifests
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.datasets.listing import modality_of
from epalm.differences import SHOWN_DIGITS, change_in_words, differing_leaves
from epalm.errors import CacheError
from epalm.media import MediaFile

_OF_RULE = ("encoder.token", "encoder.layout", "encoder.cls_token", "tokens")
_CHOICE = "encoder"  # beside the versions in what an extraction records


def differences(one: FeatureSpec, other: FeatureSpec) -> list[str]:
    """Which inputs differ, each as "preprocessing.size 224 → 384": first `one`'s, then `other`'s."""
    words = {"version": f"version of the {other.modality} extraction code"}
    leaves = [*differing_leaves(one.to_json(), other.to_json())]
    if one.encoder.get("kind") != other.encoder.get("kind"):  # what the one knows and the other does not is no change
        leaves = [leaf for leaf in leaves if not leaf[0].startswith("encoder.architecture.") and None not in leaf]
    if one.rule != other.rule:  # all else about tokens follows from it
        leaves = [leaf for leaf in leaves if not leaf[0].startswith(_OF_RULE)]
        leaves.insert(0, ("encoder.token", one.rule, other.rule))
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
    leaves = differing_leaves({**one, _CHOICE: None}, {**other, _CHOICE: None})
    return [f"{name} {change_in_words(was, now)}" for name, was, now in leaves]


def why_set(features: FeatureSet, sets: Iterable[FeatureSet]) -> dict[str, Any]:
    """What a set differs in from the `nearest` other one, in `inputs` and in recorded `libraries`; what it `serves`.

    `blocks` has the library versions that its own blocks were made with and how many with each, the latest first.
    Raises CacheError where a record is damaged.
    """
    other = nearest(features.spec, sets)
    records = sorted(features.records(), key=lambda record: record.time or 0.0, reverse=True)
    made = Counter(tuple(record.versions.items()) for record in records)
    return {
        "set": features.name,
        "nearest": other.name if other else None,
        "inputs": differences(other.spec, features.spec) if other else [],
        "serves": features.spec.served,
        "libraries": library_differences(other.recorded, features.recorded) if other else [],
        "blocks": [{"versions": dict(versions), "blocks": count} for versions, count in made.items()],
    }


def why_medium(cache: Cache, subject: str, sets: Sequence[FeatureSet]) -> dict[str, Any]:
    """Where the rows of a medium are: a file, or one that is not here, by its name in a data set.

    `sets` has a dictionary for each place of a row, and for each set of that modality without one, with the reason as
    `missing`.

    Raises:
        CacheError: it is no file and no name, or a record or a manifest is damaged.
    """
    path = Path(subject)
    is_file = path.is_file()
    digest = cache.media.digest(MediaFile(path.absolute())) if is_file else None
    digests = {features.name: [digest] if is_file else _digests_of(subject, features) for features in sets}
    if not is_file and not any(digests.values()):
        raise CacheError(
            f"{subject!r} is no file, no feature set and no name of a medium in {cache.where}",
            hint=f"give a path; the feature sets are: {', '.join(digests) or 'none'}",
        )
    modality, every = modality_of(path), []
    for features in sets:
        places = [
            {"set": features.name, "digest": one, "block": record.block, "views": record.views, "time": record.time}
            | {"host": record.written.get("host"), "versions": record.versions}
            for record in features.records()
            for one in digests[features.name]
            if one in record.rows
        ]
        if not places and modality in (None, features.spec.modality):
            reason = _reason_without_row(features, digest, path.absolute().as_posix() if is_file else subject)
            places = [{"set": features.name, "missing": reason}]
        every += places
    return {"media": subject, "digest": digest, "sets": every}


def _digests_of(name: str, features: FeatureSet) -> list[str | None]:
    """What a set's manifests and its ledger have under a name; None where it was not hashed."""
    named = [one.digests[name] for one in read_manifests(features.objects) if name in one.digests]
    return list(dict.fromkeys([*named, *(one.digest for one in features.ledger.entries() if one.media == name)]))


def _reason_without_row(features: FeatureSet, digest: str | None, path: str) -> str:
    """Why a set has no row of a medium of that digest (None: there is no file) at `path` (absolute, POSIX)."""
    entries, rows, parts = features.ledger.entries(), features.rows(), path.split("/")
    if error := next((entry.error for entry in entries if digest and entry.digest == digest), None):
        return f"it is in the ledger: {error}"
    tails = ["/".join(parts[place:]) for place in range(len(parts))]  # the longest that a data set has is the medium's
    for manifest in read_manifests(features.objects):
        name = next((tail for tail in tails if tail in manifest.digests), None)
        then = manifest.digests[name] if name else digest
        if then != digest and then in rows:
            return (
                f"the bytes have changed: when {manifest.data} was extracted, {name} had digest "
                f"{str(then)[:SHOWN_DIGITS]}, of which there is a row"
            )
    for entry in entries:
        if entry.digest is None and entry.media in tails:
            return f"it is in the ledger: {entry.error}"
    return "it was never extracted into this set"
