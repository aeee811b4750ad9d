"""`epalm cache why`: why something had to be encoded, or has no row."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epalm.cli.options import DEFAULT_CACHE, CacheOption, JsonOption
from epalm.errors import CacheError

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.cache.store import Cache


def why(
    subject: Annotated[
        str, typer.Argument(metavar="MEDIA|SET", help="A media file, or a feature set's name or how it begins.")
    ],
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Say what a feature set differs in from the nearest other one, or where the rows of a medium are and are not.

    A medium that is not here is found by its name in a data set.

    Examples:

        epalm cache why image-vit

        epalm cache why photos/cat.jpg --json
    """
    from epalm.cache.store import Cache
    from epalm.console import warn

    store = Cache(cache, read_only=True)
    sets = []
    for name in store.set_names():
        try:
            sets.append(store.load(name))
        except CacheError as error:
            warn(f"{name} is left out: {error.message}")
    names = [features.name for features in sets]
    is_set = subject in names or any(name.startswith(subject) for name in names)
    if is_set and not Path(subject).is_file():
        _why_set(store.find(subject), sets, as_json)
    else:
        _why_medium(subject, store, sets, as_json)


def _why_set(features: "FeatureSet", sets: "list[FeatureSet]", as_json: bool) -> None:
    from epalm.cache.care.why import differences, library_differences, nearest, versions_of_blocks
    from epalm.console import print_table, say

    other = nearest(features.spec, sets)
    made = versions_of_blocks(features)
    told: dict[str, Any] = {
        "set": features.name,
        "nearest": other.name if other else None,
        "inputs": differences(other.spec, features.spec) if other else [],
        "libraries": library_differences(other.recorded, features.recorded) if other else [],
        "blocks": [{"versions": versions, "blocks": count} for versions, count in made],
    }
    if as_json:
        typer.echo(json.dumps(told))
        return
    latest = made[0][0] if made else {}
    rows = [("another input", line) for line in told["inputs"]]
    rows += [("another library, recorded", line) for line in told["libraries"]]
    for versions, count in made[1:]:
        changed = ", ".join(library_differences(versions, latest)) or "nothing"
        rows.append((f"{count:,} of its own blocks are older", changed))
    if other is None:
        say(f"{features.name} is the only feature set in the cache: there is none to compare it with")
    if rows:
        than = f", against {other.name}" if other else ""
        print_table(f"{features.name}{than}", ("what differs", "there → here"), rows)


def _why_medium(subject: str, store: "Cache", sets: "list[FeatureSet]", as_json: bool) -> None:
    from epalm.cache.care.why import reason_without_row
    from epalm.datasets.listing import modality_of
    from epalm.media import MediaFile

    path = Path(subject)
    digest, before, names = None, None, []
    if path.is_file():
        medium = MediaFile(path.absolute())
        digest, before = store.media.digest(medium), store.media.previous([medium]).get(medium)
        where = path.absolute().as_posix()
    else:
        where = subject
        names = _digests_by_name(subject, sets)
        if not names:
            known = ", ".join(features.name for features in sets) or "none"
            raise CacheError(
                f"{subject!r} is no file, no feature set and no name of a medium in {store.where}",
                hint=f"give a path; the feature sets are: {known}",
            )
    modality = modality_of(path)
    told = []
    for features in sets:
        wanted = [digest] if digest else [one for name, one in names if name == features.name]
        places = [
            {"set": features.name, "digest": one, "block": record.block, "views": record.views, "time": record.time}
            | {"host": record.written.get("host"), "versions": record.versions}
            for record in features.records()
            for one in wanted
            if one in record.rows
        ]
        if places:
            told += places
        elif modality is None or features.spec.modality == modality:
            reason = reason_without_row(features, digest, path=where, before=before)
            told.append({"set": features.name, "missing": reason})
    if as_json:
        typer.echo(json.dumps({"media": subject, "digest": digest, "before": before, "sets": told}))
    else:
        _show_medium(subject, digest, told)


def _digests_by_name(name: str, sets: "list[FeatureSet]") -> list[tuple[str, str | None]]:
    """(feature set, digest) for each that a data set or a ledger has under the name; None where it was not hashed."""
    from epalm.cache.manifest import read_manifests

    found: list[tuple[str, str | None]] = []
    for features in sets:
        manifests = read_manifests(features.objects)
        found += [(features.name, one.digests[name]) for one in manifests if name in one.digests]
        found += [(features.name, entry.digest) for entry in features.ledger.entries() if entry.media == name]
    return list(dict.fromkeys(found))


def _show_medium(subject: str, digest: str | None, told: list[dict[str, Any]]) -> None:
    from datetime import datetime

    from epalm.console import print_table, say

    say(f"{subject}: " + (f"digest {digest}" if digest else "the file is not here; found by its name"))
    rows = []
    for one in told:
        if "missing" in one:
            rows.append((one["set"], f"no row: {one['missing']}"))
            continue
        when = datetime.fromtimestamp(one["time"]).strftime("%Y-%m-%d %H:%M") if one["time"] else "at a time not known"
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        views = ", ".join(str(view) for view in one["views"])
        host = f" on {one['host']}" if one["host"] else ""
        by = f", by {versions}" if versions else ""
        rows.append((one["set"], f"views {views}, block {one['block']}, written {when}{host}{by}"))
    if rows:
        print_table("rows", ("set", "row"), rows)
    else:
        say("there is no feature set for it")
