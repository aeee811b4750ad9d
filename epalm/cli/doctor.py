"""`epalm doctor`: what of this machine works for epalm, what does not, and what to do about it."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption

if TYPE_CHECKING:
    from epalm.cli.machine import Finding


def doctor(
    *,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    write: Annotated[
        bool, typer.Option("--write/--no-write", help="Try to write into the cache and the runs, and take it back.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: packages, GPU, FFmpeg, Java and which metrics run, models that are here, disk, write access.

    Nothing is downloaded. Exit code 1 where something without which epalm cannot work is broken, else 0.

    Examples:

        epalm doctor

        epalm doctor --cache s3://bucket/cache --json
    """
    from epalm.cli.machine import examine

    findings = examine(cache, runs, write=write)
    broken = [one for one in findings if one.state == "broken"]
    if as_json:
        typer.echo(json.dumps({"healthy": not broken, "findings": [asdict(one) for one in findings]}))
    else:
        _show(findings)
    if broken:
        raise typer.Exit(1)


def _show(findings: "list[Finding]") -> None:
    marks = {"works": "works", "lacks": "lacks", "broken": "BROKEN"}
    width = max(len(one.what) for one in findings)
    for one in findings:
        typer.echo(f"{marks[one.state]:<7} {one.what:<{width}}  {one.found}")
        if one.hint:
            typer.echo(f"{'':<8}{'':<{width}}  → {one.hint}")
