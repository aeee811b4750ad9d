"""`epalm cache`: what is stored, for whom, and what could not be."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epalm.cli.cache_exchange import export_features, import_features, pull, push
from epalm.cli.cache_health import gc, verify
from epalm.cli.cache_why import why
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption
from epalm.errors import CacheError

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.cli.run_uses import Runs

cache_app = typer.Typer(
    help="The feature cache: what is there and why, whether it is whole, what can go, and where else it can be.",
    no_args_is_help=True,
)
SetArgument = Annotated[str, typer.Argument(metavar="SET", help="Name of a feature set, or how it begins.")]
OptionalSetArgument = Annotated[str | None, typer.Argument(metavar="[SET]", help="One feature set. [default: all]")]


@cache_app.command("ls")
def list_sets(runs: RunsOption = DEFAULT_RUNS, cache: CacheOption = DEFAULT_CACHE, as_json: JsonOption = False) -> None:
    """List the feature sets: what they hold, when they were last used, and by which runs.

    Examples:

        epalm cache ls

        epalm cache ls --cache /data/cache --runs /data/runs --json
    """
    from epalm.cache.store import Cache
    from epalm.cli.run_uses import runs_below
    from epalm.console import print_table, say, size_in_words

    store, used = Cache(cache), runs_below([runs])
    figures = [_figures_or_fault(store, name, used) for name in store.set_names()]
    if as_json:
        typer.echo(json.dumps(figures))
        return
    if not figures:
        say(f"{cache} holds no feature set yet; epalm extract --modality image makes one")
        return
    columns = ("set", "media", "views", "layers", "size", "bad", "last used", "runs")
    rows = [
        (
            f["set"],
            f"{f['media']:,}",
            _ranges(f["views"]),
            _ranges(f["layers"]),
            size_in_words(f["bytes"]),
            str(f["bad"]),
            _day(f["last_used"]),
            ", ".join(Path(run).name for run in f["runs"]) or "none",
        )
        for f in figures
        if "fault" not in f
    ]
    if rows:
        print_table(f"feature sets in {cache}", columns, rows)
    damaged = [(f["set"], f["fault"]) for f in figures if "fault" in f]
    if damaged:
        print_table("damaged, see epalm cache verify", ("set", "what is wrong"), damaged)


@cache_app.command()
def info(
    name: SetArgument,
    runs: RunsOption = DEFAULT_RUNS,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Show what decides a feature set's numbers, what made it, who uses it and what could not be read.

    Examples:

        epalm cache info image

        epalm cache info video-timesformer --json
    """
    from epalm.cache.manifest import read_manifests
    from epalm.cache.store import Cache
    from epalm.cli.run_uses import runs_below
    from epalm.console import print_table

    features = Cache(cache).find(name)
    entries = _noted(features)
    figures = {
        **_figures(features, runs_below([runs])),
        "blocks": len(features.block_names()),
        "fingerprint": features.spec.fingerprint,
        "path": features.where,
        "data": {manifest.data: len(manifest.digests) for manifest in read_manifests(features.objects)},
        "spec": features.spec.to_json(),
        "recorded": features.recorded,
        "ledger": entries,
    }
    if as_json:
        typer.echo(json.dumps(figures))
        return
    nested = ("spec", "recorded", "ledger", "data", "last_used")
    flat = [(key, value) for key, value in figures.items() if key not in nested]
    flat += [("last used", _day(figures["last_used"]))]
    flat += [(f"data: {data}", f"{count:,} media") for data, count in figures["data"].items()]
    flat += [(f"spec.{key}", value) for key, value in features.spec.to_json().items()]
    flat += [(f"recorded.{key}", value) for key, value in features.recorded.items()]
    flat += [(f"{'warning' if entry['warning'] else 'bad'}: {entry['media']}", entry["error"]) for entry in entries]
    rows = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in flat]
    print_table(features.name, ("", "value"), rows)


@cache_app.command()
def ledger(name: OptionalSetArgument = None, cache: CacheOption = DEFAULT_CACHE, as_json: JsonOption = False) -> None:
    """List the media that could not be read and still have no row, and those that have one and a warning, and why.

    Examples:

        epalm cache ledger

        epalm cache ledger audio --json
    """
    from epalm.cache.store import Cache
    from epalm.console import print_table, say, warn

    store = Cache(cache)
    found: list[dict[str, Any]] = []
    for one in [store.find(name).name] if name else store.set_names():
        try:
            features = store.load(one)
            found += [{"set": one, "modality": features.spec.modality, **entry} for entry in _noted(features)]
        except CacheError as error:
            if name:
                raise
            warn(f"{one} is left out: {error.message}")
    if as_json:
        typer.echo(json.dumps(found))
    bad, warned = ([entry for entry in found if entry["warning"] == warning] for warning in (False, True))
    for title, column, entries in (("media without a row", "error", bad), ("media with a warning", "warning", warned)):
        rows = [(entry["media"], entry["set"], entry["error"], entry["hint"] or "") for entry in entries]
        if rows and not as_json:
            print_table(title, ("media", "set", column, "what to do"), rows)
    if not found:
        say("the ledger is empty: every medium that was extracted has a row")
    for modality in dict.fromkeys(entry["modality"] for entry in bad):
        say(f"to try them again: epalm extract --modality {modality} --data … --retry-bad, with the options as before")


def _figures_or_fault(store: Any, name: str, runs: "Runs") -> dict[str, Any]:
    try:
        return _figures(store.load(name), runs)
    except CacheError as error:
        return {"set": name, "fault": error.message}


def _figures(features: "FeatureSet", runs: "Runs") -> dict[str, Any]:
    from epalm.cache.care.uses import last_used
    from epalm.cli.run_uses import users_of

    noted = _noted(features)
    times = [record.time or 0.0 for record in features.records()]
    return {
        "set": features.name,
        "modality": features.spec.modality,
        "encoder": str(features.spec.encoder.get("kind", "")),
        "media": len(features.rows()),
        "views": list(features.views()),
        "layers": list(features.spec.layers),
        "width": features.spec.width,
        "dtype": features.spec.stored_dtype,
        "bytes": features.stored_bytes(),
        "bad": len({entry["media"] for entry in noted if not entry["warning"]}),
        "warned": len({entry["media"] for entry in noted if entry["warning"]}),
        "last_used": last_used(features.objects) or max(times, default=None),
        "runs": users_of(features, runs),
    }


def _noted(features: "FeatureSet") -> list[dict[str, Any]]:
    """The ledger's entries that still count: errors, then warnings."""
    from epalm.cache.care.holes import still_bad, still_warned

    return [
        {"media": entry.media, "error": entry.error, "hint": entry.hint, "warning": entry.warning}
        for entry in (*still_bad(features), *still_warned(features))
    ]


def _ranges(numbers: list[int]) -> str:
    """Numbers in order as "0-4" or "7, 9-11"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _day(seconds: float | None) -> str:
    return "not known" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


cache_app.command()(why)
cache_app.command()(verify)
cache_app.command()(gc)
cache_app.command("export")(export_features)
cache_app.command("import")(import_features)
cache_app.command()(push)
cache_app.command()(pull)
