"""`epalm cache`: what is stored, and whether it is whole."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epalm.cli.cache_exchange import export_features, import_features, pull, push
from epalm.cli.options import DEFAULT_CACHE, CacheOption, JsonOption

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet

cache_app = typer.Typer(help="The feature cache: look at it, check it, move it.", no_args_is_help=True)

DAMAGED = 3  # exit code: something is not as its record says
_MIB = 2**20


@cache_app.command("ls")
def list_sets(cache: CacheOption = DEFAULT_CACHE, as_json: JsonOption = False) -> None:
    """List the feature sets.

    Examples:

        epalm cache ls

        epalm cache ls --cache /data/cache --json
    """
    from epalm.cache.store import Cache
    from epalm.console import print_table, say

    figures = [_figures(features) for features in Cache(cache).sets()]
    if as_json:
        typer.echo(json.dumps(figures))
    elif figures:
        rows = [
            (
                f["set"],
                f"{f['media']:,}",
                str(len(f["layers"])),
                str(f["width"]),
                f"{f['bytes'] / _MIB:,.1f}",
                str(f["bad"]),
            )
            for f in figures
        ]
        print_table(f"feature sets in {cache}", ("set", "media", "layers", "width", "MiB", "bad"), rows)
    else:
        say(f"{cache} holds no feature set yet; epalm extract --modality image makes one")


@cache_app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="SET", help="Name of a feature set, or how it begins.")],
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Show what decides a feature set's numbers, what made it and what could not be read.

    Examples:

        epalm cache info image

        epalm cache info video-timesformer --json
    """
    from epalm.cache.store import Cache
    from epalm.console import print_table

    features = Cache(cache).find(name)
    entries = [{"media": e.media, "error": e.error, "hint": e.hint} for e in features.ledger.entries()]
    figures = {
        **_figures(features),
        "fingerprint": features.spec.fingerprint,
        "path": features.where,
        "spec": features.spec.to_json(),
        "recorded": features.recorded,
        "ledger": entries,
    }
    if as_json:
        typer.echo(json.dumps(figures))
        return
    flat = [(key, value) for key, value in figures.items() if key not in ("spec", "recorded", "ledger")]
    flat += [(f"spec.{key}", value) for key, value in features.spec.to_json().items()]
    flat += [(f"recorded.{key}", value) for key, value in features.recorded.items()]
    flat += [(f"bad: {entry['media']}", entry["error"]) for entry in entries]
    rows = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in flat]
    print_table(features.name, ("", "value"), rows)


@cache_app.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[SET]", help="One feature set. [default: all]")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop damaged blocks, so that epalm extract makes them again.")
    ] = False,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Read every block and hold it against its record; the exit code is 3 when one is damaged.

    Examples:

        epalm cache verify

        epalm cache verify image --repair
    """
    from epalm.cache.store import Cache
    from epalm.console import say, warn

    store = Cache(cache)
    found: list[dict[str, Any]] = []
    for features in [store.find(name)] if name else store.sets():
        faults = features.verify()
        found += [{"set": features.name, "block": fault.block, "error": fault.error} for fault in faults]
        say(f"{features.name}: {_count(len(features.block_names()), 'block')}, {len(faults)} damaged")
        for fault in faults:
            warn(fault.error)
            if repair:
                features.drop(fault.block)
    if as_json:
        typer.echo(json.dumps({"faults": found, "dropped": repair}))
    if found and repair:
        say(f"{_count(len(found), 'damaged block')} dropped; epalm extract makes the rows again")
    elif found:
        say("epalm cache verify --repair drops them, and epalm extract makes the rows again")
        raise typer.Exit(DAMAGED)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _figures(features: "FeatureSet") -> dict[str, Any]:
    rows = features.rows()
    bad = {entry.media for entry in features.ledger.entries() if entry.digest not in rows}
    return {
        "set": features.name,
        "modality": features.spec.modality,
        "media": len(rows),
        "layers": list(features.spec.layers),
        "width": features.spec.width,
        "dtype": features.spec.stored_dtype,
        "bytes": features.bytes(),
        "bad": len(bad),
    }


cache_app.command("export")(export_features)
cache_app.command("import")(import_features)
cache_app.command()(push)
cache_app.command()(pull)
