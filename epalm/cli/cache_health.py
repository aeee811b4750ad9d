"""`epalm cache verify` and `epalm cache gc`: whether the cache is whole, and what in it nothing needs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption

if TYPE_CHECKING:
    from epalm.cache.store import Cache

DAMAGED = 3  # exit code: something is not as its record says
_HOUR = 3600.0  # seconds


def verify(
    name: Annotated[str | None, typer.Argument(metavar="[SET]", help="One feature set. [default: all]")] = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Restore what the rest of the set tells; drop other damaged blocks.")
    ] = False,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Read everything that is stored and hold it against its record; the exit code is 3 when something is damaged.

    With --repair, what the rest of a set tells is put right, and other damaged blocks are dropped: their rows are
    named, the exit code stays 3, and the next epalm extract makes them again.

    Examples:

        epalm cache verify

        epalm cache verify image --repair
    """
    from epalm.cache.care.check import Outcome, check_sets, repair
    from epalm.cache.store import Cache
    from epalm.console import say, warn

    store = Cache(cache, read_only=not mend)
    checkups = check_sets(store, _named(store, name) if name else store.set_names())
    for checkup in checkups:
        faults = f"{len(checkup.findings):,} damaged" if checkup.findings else "whole"
        say(f"{checkup.set}: {len(checkup.records):,} blocks, {faults}")
        for note in checkup.notes:
            say(f"  {note}")
        for finding in checkup.findings:
            warn(f"{checkup.set}: {finding.error}")
        if mend:
            repair(checkup)
            for finding in checkup.findings:
                show = say if finding.outcome is Outcome.RESTORED else warn
                show(f"{checkup.set}, {finding.what}: {finding.repair}")
        else:
            for hint in dict.fromkeys(finding.hint for finding in checkup.findings):
                say(f"  → {hint}")
    if as_json:
        found = [{"set": one.set, **finding.to_json()} for one in checkups for finding in one.findings]
        sets = [
            {"set": one.set, "blocks": len(one.records), "bytes": one.bytes, "notes": one.notes} for one in checkups
        ]
        typer.echo(json.dumps({"faults": found, "sets": sets}))
    if not all(checkup.sound for checkup in checkups):
        raise typer.Exit(DAMAGED)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted; delete nothing.")] = False,
    grace: Annotated[
        float,
        typer.Option(
            metavar="HOURS",
            help="Leave alone what was written or used within so many hours. With 0, nothing else may be running.",
            min=0.0,
        ),
    ] = 24.0,
    unused: Annotated[
        bool, typer.Option("--unused", help="Also delete feature sets that no run uses, with all their rows.")
    ] = False,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--runs",
            envvar="EPALM_RUNS",
            help="Folder of run folders whose sets are kept; may be given several times. [default: .epalm/runs]",
            show_default=False,
        ),
    ] = None,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Free space: leftovers of killed processes, and with --unused whole feature sets that no run refers to.

    A run that was trained on a set has marked it: it counts while its folder is there, and always when it lies on
    another machine.

    Examples:

        epalm cache gc --dry-run

        epalm cache gc --unused --runs /data/runs --grace 72
    """
    from epalm.cache.care.collect import collect, find_garbage
    from epalm.cache.store import Cache
    from epalm.cli.run_uses import runs_below
    from epalm.console import print_table, say, size_in_words

    store = Cache(cache, read_only=True)
    users = runs_below(runs or [DEFAULT_RUNS], strict=True) if unused else {}
    garbage = find_garbage(store, grace=grace * _HOUR, unused=unused, runs=users)
    size = sum(one.bytes for one in garbage)
    freed = 0 if dry_run else collect(store, garbage)
    if as_json:
        items = [{"folder": one.folder, "what": one.what, "bytes": one.bytes} for one in garbage]
        typer.echo(json.dumps({"dry_run": dry_run, "found": items, "bytes": size, "freed": freed}))
    elif garbage:
        rows = [(one.folder or ".", one.what, size_in_words(one.bytes)) for one in garbage]
        print_table("would be deleted" if dry_run else "deleted", ("folder", "what", "size"), rows)
    if not garbage:
        say(f"there is nothing to free in {cache}")
    elif dry_run:
        say(f"{size_in_words(size)} would be freed; nothing was deleted")
    else:
        say(f"{size_in_words(freed)} freed")


def _named(store: "Cache", name: str) -> list[str]:
    """The one set of that name, damaged or not. Raises CacheError."""
    from epalm.errors import CacheError

    try:
        return [store.find(name).name]
    except CacheError:
        fitting = [one for one in store.set_names() if one.startswith(name)]
        if len(fitting) != 1:
            raise
        return fitting
