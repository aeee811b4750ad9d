"""`epalm cache ls`, `info` and `ledger`: what is stored, for whom, and what could not be."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.cli.tables import Listing, Record, show_listing, show_values
from epalm.console import size_in_words, warn
from epalm.errors import CacheError

SetArgument = Annotated[str, typer.Argument(metavar="SET", help="Name of a feature set, or how it begins.")]
OptionalSetArgument = Annotated[str | None, typer.Argument(metavar="[SET]", help="One feature set. [default: all]")]
T = TypeVar("T")


def list_sets(runs: Path = DEFAULT_RUNS, cache: str = DEFAULT_CACHE, *, listing: Listing) -> None:
    """List the feature sets: what they hold, when they were last used, and by which runs.

    Examples:

        epalm cache ls
        epalm cache ls --cache /data/cache --runs /data/runs --format csv
    """
    from epalm.cache.care.collect import users_of
    from epalm.cache.store import SETS, Cache
    from epalm.train.runs.listing import runs_of_sets

    store, used = Cache(cache), runs_of_sets([runs])
    frame = store.frame()
    frame["runs"] = [users_of(store.objects.below(f"{SETS}/{name}"), used.get(name, ())) for name in frame["set"]]
    show_listing(
        frame,
        listing.form,
        title=f"feature sets in {cache}",
        cells=_cells,
        empty=f"{cache} holds no feature set yet; epalm extract --modality image makes one",
        notes=["epalm cache verify says what of the damaged ones is whole"] if frame["fault"].notna().any() else [],
    )


def info(name: SetArgument, runs: Path = DEFAULT_RUNS, cache: str = DEFAULT_CACHE, *, listing: Listing) -> None:
    """Show what decides a feature set's numbers, what made it, who uses it and what could not be read.

    Examples:

        epalm cache info image
        epalm cache info video-timesformer --json
    """
    from epalm.cache.care.collect import users_of
    from epalm.cache.manifest import read_manifests
    from epalm.cache.store import Cache, ledger_rows, set_figures
    from epalm.train.runs.listing import runs_of_sets

    features = Cache(cache).find(name)
    entries = [{key: row[key] for key in ("media", "error", "hint", "warning")} for row in ledger_rows(features)]
    figures = {
        **set_figures(features),
        "runs": users_of(features.objects, runs_of_sets([runs]).get(features.name, ())),
        "blocks": len(features.block_names()),
        "fingerprint": features.spec.fingerprint,
        "serves": features.spec.served,
        "path": features.where,
        "data": {manifest.data: len(manifest.digests) for manifest in read_manifests(features.objects)},
        "spec": features.spec.to_json(),
        "recorded": features.recorded,
        "ledger": entries,
    }
    rows = {key: value for key, value in figures.items() if not isinstance(value, dict) and key != "ledger"}
    rows |= {"last_used": day(figures["last_used"])}
    rows |= {f"{part}: {key}": value for part in ("data", "spec", "recorded") for key, value in figures[part].items()}
    rows |= {f"{'warning' if entry['warning'] else 'bad'}: {entry['media']}": entry["error"] for entry in entries}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in rows.items()}
    show_values(texts, listing.form, title=features.name, as_json=figures)


def ledger(name: OptionalSetArgument = None, cache: str = DEFAULT_CACHE, *, listing: Listing) -> None:
    """List the media that could not be read and still have no row, and those that have one and a warning, and why.

    Examples:

        epalm cache ledger
        epalm cache ledger audio --format csv
    """
    from epalm.cache.store import LEDGER_COLUMNS, Cache, ledger_rows

    store = Cache(cache)
    every = (
        [ledger_rows(store.find(name))]
        if name
        else of_each(store.set_names(), lambda one: ledger_rows(store.load(one)))
    )
    entries = [row for rows in every for row in rows]
    show_listing(
        entries,
        listing.form,
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
            for modality in dict.fromkeys(entry["modality"] for entry in entries if not entry["warning"])
        ],
        columns=LEDGER_COLUMNS,
    )


def of_each(names: Iterable[str], make: Callable[[str], T]) -> list[T]:
    """What `make` gives for each feature set; a damaged one is left out, with a warning."""
    made = []
    for name in names:
        try:
            made.append(make(name))
        except CacheError as error:
            warn(f"{name} is left out: {error.message}")
    return made


def day(seconds: float | None) -> str:
    """A Unix time (seconds) on the user's clock."""
    return "not known" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _cells(one: Record) -> dict[str, str]:
    cells = dict.fromkeys(("set", "media", "views", "layers", "tokens", "size", "bad", "last used", "runs"), "")
    if one["fault"]:
        return cells | {"set": one["set"], "media": f"damaged: {one['fault']}"}
    return {
        "set": one["set"],
        "media": f"{one['media']:,.0f}",
        "views": ", ".join(map(str, one["views"])),
        "layers": ", ".join(map(str, one["layers"])),
        "tokens": f"{one['tokens']:.0f}",
        "size": size_in_words(int(one["bytes"])),
        "bad": f"{one['bad']:.0f}",
        "last used": day(one["last_used"]),
        "runs": ", ".join(Path(run).name for run in one["runs"]) or "none",
    }
