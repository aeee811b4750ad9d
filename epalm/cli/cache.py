"""`epalm cache`: what is stored, for whom, and what could not be."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.cache_exchange import export_features, import_features, pull, push
from epalm.cli.cache_health import gc, verify
from epalm.cli.cache_why import why
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption
from epalm.cli.tables import Format, FormatOption, Record, records_of, show_listing
from epalm.errors import CacheError

cache_app = typer.Typer(
    help="The feature cache: what is there and why, whether it is whole, what can go, and where else it can be.",
    no_args_is_help=True,
)
SetArgument = Annotated[str, typer.Argument(metavar="SET", help="Name of a feature set, or how it begins.")]
OptionalSetArgument = Annotated[str | None, typer.Argument(metavar="[SET]", help="One feature set. [default: all]")]


@cache_app.command("ls")
def list_sets(
    runs: RunsOption = DEFAULT_RUNS,
    cache: CacheOption = DEFAULT_CACHE,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the feature sets: what they hold, when they were last used, and by which runs.

    Examples:

        epalm cache ls

        epalm cache ls --cache /data/cache --runs /data/runs --format csv
    """
    from epalm.cache.store import Cache
    from epalm.cli.run_uses import runs_below, users_of

    store, used = Cache(cache), runs_below([runs])
    frame = store.frame()
    whole = frame["fault"].isna()
    rows = zip(frame["set"], whole, strict=True)
    frame["runs"] = [users_of(store.load(name), used) if sound else [] for name, sound in rows]
    show_listing(
        frame,
        Format.JSON if as_json else form,
        title=f"feature sets in {cache}",
        cells=_cells,
        empty=f"{cache} holds no feature set yet; epalm extract --modality image makes one",
        notes=["epalm cache verify says what of the damaged ones is whole"] if not whole.all() else [],
    )


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
    from epalm.cache.store import Cache, ledger_frame, set_figures
    from epalm.cli.run_uses import runs_below, users_of
    from epalm.console import print_table

    features = Cache(cache).find(name)
    entries = records_of(ledger_frame([features])[["media", "error", "hint", "warning"]])
    figures = {
        **set_figures(features),
        "runs": users_of(features, runs_below([runs])),
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
    flat += [(f"{part}.{key}", value) for part in ("spec", "recorded") for key, value in figures[part].items()]
    flat += [(f"{'warning' if entry['warning'] else 'bad'}: {entry['media']}", entry["error"]) for entry in entries]
    print_table(features.name, ("", "value"), [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in flat])


@cache_app.command()
def ledger(
    name: OptionalSetArgument = None,
    cache: CacheOption = DEFAULT_CACHE,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the media that could not be read and still have no row, and those that have one and a warning, and why.

    Examples:

        epalm cache ledger

        epalm cache ledger audio --format csv
    """
    import pandas as pd

    from epalm.cache.store import Cache, ledger_frame
    from epalm.console import warn

    store = Cache(cache)
    frames = []
    for one in [store.find(name).name] if name else store.set_names():
        try:
            frames.append(ledger_frame([store.load(one)]))
        except CacheError as error:
            if name:
                raise
            warn(f"{one} is left out: {error.message}")
    frame = pd.concat(frames or [ledger_frame([])], ignore_index=True)
    bad = frame.loc[~frame["warning"], "modality"].unique()
    show_listing(
        frame,
        Format.JSON if as_json else form,
        title="media without a row, and media with a warning",
        cells=lambda entry: {
            "media": entry["media"],
            "set": entry["set"],
            "row": "yes" if entry["warning"] else "none",
            "why": entry["error"],
            "what to do": entry["hint"] or "",
        },
        empty="the ledger is empty: every medium that was extracted has a row",
        notes=[
            f"to try them again: epalm extract --modality {modality} --data … --retry-bad, with the options as before"
            for modality in bad
        ],
    )


def _cells(one: Record) -> dict[str, str]:
    from epalm.console import size_in_words

    if one["fault"]:
        return dict.fromkeys(_COLUMNS, "") | {"set": one["set"], "media": f"damaged: {one['fault']}"}
    values = (
        one["set"],
        f"{one['media']:,.0f}",
        _ranges(one["views"]),
        _ranges(one["layers"]),
        size_in_words(int(one["bytes"])),
        f"{one['bad']:.0f}",
        _day(one["last_used"]),
        ", ".join(Path(run).name for run in one["runs"]) or "none",
    )
    return dict(zip(_COLUMNS, values, strict=True))


_COLUMNS = ("set", "media", "views", "layers", "size", "bad", "last used", "runs")


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


for _command in (why, verify, gc, push, pull):
    cache_app.command()(_command)
cache_app.command("export")(export_features)
cache_app.command("import")(import_features)
