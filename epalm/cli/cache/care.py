"""`epalm cache why`, `verify` and `gc`: why something was encoded, whether all is whole, and what nothing needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.cache.sets import OptionalSetArgument, day, of_each
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.cli.tables import Listing, Record, show_listing
from epalm.console import say, size_in_words
from epalm.request_fields import Option, option

DAMAGED = 3  # exit code: something is not as its record says
_HOUR = 3600.0  # seconds


def why(
    subject: Annotated[
        str, typer.Argument(metavar="MEDIA|SET", help="A media file, or a feature set's name or how it begins.")
    ],
    cache: str = DEFAULT_CACHE,
    *,
    listing: Listing,
) -> None:
    """Say what a feature set differs in from the nearest other one, or where the rows of a medium are and are not.

    A medium that is not here is found by its name in a data set.

    Examples:

        epalm cache why image-vit
        epalm cache why photos/cat.jpg --json
    """
    from epalm.cache.care.why import library_differences, why_medium, why_set
    from epalm.cache.store import Cache

    store, form = Cache(cache, read_only=True), listing.form
    sets = of_each(store.set_names(), store.load)
    if Path(subject).is_file() or not any(features.name.startswith(subject) for features in sets):
        facts = why_medium(store, subject, sets)
        digest = facts["digest"]
        say(f"{subject}: " + (f"digest {digest}" if digest else "the file is not here; found by its name"))
        none = "there is no feature set for it"
        show_listing(facts["sets"], form, title="rows", cells=_row_cells, empty=none, as_json=facts)
        return
    facts = why_set(store.find(subject), sets)
    latest, *older = facts["blocks"] or [{"versions": {}}]
    changes = [("another input", line) for line in facts["inputs"]]
    changes += [("another library, recorded", line) for line in facts["libraries"]]
    for made in older:
        changed = ", ".join(library_differences(made["versions"], latest["versions"])) or "nothing"
        changes.append((f"{made['blocks']:,} of its own blocks are older", changed))
    than = f", against {facts['nearest']}" if facts["nearest"] else ""
    if not than:
        say(f"{facts['set']} is the only feature set in the cache: there is none to compare it with")
    if "," in facts["serves"]:
        say(f"{facts['set']} serves requests for {facts['serves']} tokens")
    columns = ["what differs", "there → here"]
    rows = [dict(zip(columns, change, strict=True)) for change in changes]
    show_listing(rows, form, title=f"{facts['set']}{than}", empty="nothing differs", columns=columns, as_json=facts)


def verify(
    name: OptionalSetArgument = None,
    repair: Annotated[bool, Option("Restore what the rest of the set tells; drop other damaged blocks.")] = False,
    cache: str = DEFAULT_CACHE,
    *,
    listing: Listing,
) -> None:
    """Read everything that is stored and hold it against its record; the exit code is 3 when something is damaged.

    With --repair, what the rest of a set tells is put right, and other damaged blocks are dropped: their rows are
    named, the exit code stays 3, and the next epalm extract makes them again.

    Examples:

        epalm cache verify
        epalm cache verify image --repair
    """
    from epalm.cache.care.check import COLUMNS, RESTORED, check_set
    from epalm.cache.store import Cache

    store = Cache(cache, read_only=not repair)
    names = [one for one in store.set_names() if one.startswith(name or "")]  # also of damaged sets
    if name and len(names) != 1:
        names = [store.find(name).name]  # which says what there is
    checkups = [check_set(store, one, repair=repair) for one in names]
    for checkup in checkups:
        damaged = f"{len(checkup.findings):,} damaged" if checkup.findings else "whole"
        say(f"{checkup.set}: {checkup.blocks:,} blocks, {damaged}")
    findings = [finding for checkup in checkups for finding in checkup.findings]
    sets = [{"set": one.set, "blocks": one.blocks, "bytes": one.bytes} for one in checkups]
    show_listing(
        findings,
        listing.form,
        columns=COLUMNS,
        title="damaged",
        cells=lambda one: {
            "what": one["what"],
            "set": one["set"],
            "why": one["error"],
            "repair" if repair else "what to do": one["repair" if repair else "hint"],
        },
        empty="nothing is damaged",
        as_json={"faults": findings, "sets": sets},
    )
    if any(finding["outcome"] != RESTORED for finding in findings):
        raise typer.Exit(DAMAGED)


@dataclass(frozen=True)
class GcRequest:
    """What may be deleted."""

    dry_run: bool = option("Say what would be deleted; delete nothing.", False)
    grace: float = option(
        "Leave alone what was written or used within so many hours. With 0, nothing else may be running.",
        24.0,
        minimum=0.0,
        metavar="HOURS",
    )
    unused: bool = option("Also delete feature sets that no run uses, with all their rows.", False)
    runs: list[Path] | None = option(
        "Folder of run folders whose sets are kept; may be given several times. [default: .epalm/runs]",
        None,
        envvar="EPALM_RUNS",
    )


def gc(request: GcRequest, cache: str = DEFAULT_CACHE, *, listing: Listing) -> None:
    """Free space: leftovers of killed processes, and with --unused whole feature sets that no run refers to.

    A run that was trained on a set has marked it: it counts while its folder is there, and always when it lies on
    another machine.

    Examples:

        epalm cache gc --dry-run
        epalm cache gc --unused --runs /data/runs --grace 72
    """
    from epalm.cache.care.collect import find_garbage
    from epalm.cache.store import Cache
    from epalm.train.runs.listing import runs_of_sets

    store = Cache(cache, read_only=True)
    users = runs_of_sets(request.runs or [DEFAULT_RUNS], strict=True) if request.unused else {}
    garbage = find_garbage(store, grace=request.grace * _HOUR, unused=request.unused, runs=users)
    size = sum(one.bytes for one in garbage)
    if not request.dry_run:
        for one in garbage:
            one.delete()
    items = [{"folder": one.folder, "what": one.what, "bytes": one.bytes} for one in garbage]
    show_listing(
        items,
        listing.form,
        columns=["folder", "what", "bytes"],
        title="would be deleted" if request.dry_run else "deleted",
        cells=lambda one: {"folder": one["folder"] or ".", "what": one["what"], "size": size_in_words(one["bytes"])},
        empty=f"there is nothing to free in {cache}",
        as_json={"dry_run": request.dry_run, "found": items, "bytes": size, "freed": 0 if request.dry_run else size},
    )
    if garbage:
        say(f"{size_in_words(size)} {'would be freed; nothing was deleted' if request.dry_run else 'freed'}")


def _row_cells(one: Record) -> dict[str, str]:
    if one.get("missing"):
        return {"set": one["set"], "row": f"no row: {one['missing']}"}
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    parts = [f"views {', '.join(map(str, one['views']))}", f"block {one['block']}", f"written {day(one['time'])}"]
    parts += [f"on {one['host']}"] if one["host"] else []
    parts += [f"by {versions}"] if versions else []
    return {"set": one["set"], "row": ", ".join(parts)}
