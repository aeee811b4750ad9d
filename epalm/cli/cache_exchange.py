"""`epalm cache export`, `import`, `push` and `pull`: feature sets as files, and from one cache to another."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import DEFAULT_CACHE, CacheOption, JsonOption, PlanOption
from epalm.cli.outputs import ForceOption, require_output

if TYPE_CHECKING:
    from epalm.cache.exchange.transfer import Transferred
    from epalm.cache.feature_set import FeatureSet
    from epalm.cache.store import Cache

_SetArgument = Annotated[str, typer.Argument(metavar="SET", help="Name of a feature set, or how it begins.")]
_UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="Another cache: a folder, or a URL such as s3://bucket/cache.")
]


def export_features(
    name: _SetArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Ends in .h5 (can be imported again), .npz or .parquet.", writable=True),
    ],
    layers: Annotated[
        str | None,
        typer.Option("--layers", help="Blocks whose tokens are written: last:6, 6-11 or 7,9,11. [default: all stored]"),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option("--views", help="0, 0-4 or 0,2: media that lack one are left out. [default: those all have]"),
    ] = None,
    force: ForceOption = False,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Write a feature set to one file: HDF5, NumPy or Parquet.

    Every block is verified as it is read. The file is there whole or not at all.

    Examples:

        epalm cache export image features.h5

        epalm cache export image-vit features.npz --layers last:1 --views 0

        epalm cache export video features.parquet --cache s3://bucket/cache
    """
    from epalm.cache.exchange.files import export_set
    from epalm.cache.store import Cache
    from epalm.console import say, size_in_words, warn

    require_output(file, [cache], ours=lambda _: False, force=force)
    store = Cache(cache)
    features = store.find(name)
    done = export_set(
        features,
        file,
        layers=None if layers is None else store.chosen_layers(features, layers),
        views=None if views is None else _numbers(views),
    )
    if done.left_out:
        warn(f"{done.left_out:,} media lack one of the views {list(done.views)} and are left out")
    if as_json:
        typer.echo(json.dumps(done.to_json()))
    say(
        f"{done.media:,} media, views {list(done.views)}, layers {list(done.layers)}: "
        f"{size_in_words(done.bytes)} in {done.file}"
    )


def import_features(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .h5 file of epalm cache export.")],
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Take the feature set of an HDF5 file into the cache; rows that are there already are left alone.

    The whole file is checked before anything is written: it need not come from somebody whom you trust.

    Examples:

        epalm cache import features.h5

        epalm cache import features.h5 --cache /data/cache
    """
    from epalm.cache.exchange.files import import_set
    from epalm.cache.store import Cache
    from epalm.console import say

    store = Cache(cache)
    done = import_set(store, file)
    if as_json:
        typer.echo(json.dumps(done.to_json()))
    say(f"{done.set}: {done.media:,} media taken in, {done.there:,} were there")
    _say_next(store, store.load(done.set))


def push(
    name: _SetArgument,
    url: _UrlArgument,
    plan: PlanOption = False,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Copy a feature set to another cache, so that others can use it.

    Only blocks that are not there are copied, each verified first, so the same command goes on after a stop. A
    damaged block is named and not copied; the exit code is then 3.

    Examples:

        epalm cache push image s3://bucket/cache --plan

        epalm cache push image s3://bucket/cache

        epalm cache push video-timesformer /mnt/shared/cache
    """
    from epalm.cache.exchange.transfer import note_latest
    from epalm.cache.store import Cache
    from epalm.errors import CacheError

    source, target = Cache(cache, read_only=plan), Cache(url, read_only=plan)
    done = _transfer(source.find(name), target, "push", plan, as_json)
    if done:
        try:
            target.latest(done.features.spec.modality)
        except CacheError:  # whoever trains from there finds this set; who extracted there keeps theirs
            note_latest(target, done.features, source)
        _end(done)


def pull(
    url: _UrlArgument,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SET]", help="Name of a feature set, or how it begins. [default: the only one]"),
    ] = None,
    plan: PlanOption = False,
    cache: CacheOption = DEFAULT_CACHE,
    as_json: JsonOption = False,
) -> None:
    """Copy a feature set from another cache, and train on it, with or without the media.

    Only blocks that are not here are copied, each verified first, so the same command goes on after a stop.

    Examples:

        epalm cache pull s3://bucket/cache

        epalm cache pull s3://bucket/cache image-vit --plan

        epalm cache pull /mnt/shared/cache video --cache /data/cache
    """
    from epalm.cache.store import Cache

    source, target = Cache(url, read_only=True), Cache(cache, read_only=plan)
    done = _transfer(source.find(_only(source) if name is None else name), target, "pull", plan, as_json)
    if done:
        _say_next(target, done.features, source)
        _end(done)


def _transfer(source: "FeatureSet", target: "Cache", verb: str, only_plan: bool, as_json: bool) -> "Transferred | None":
    from epalm.cache.exchange.transfer import plan_transfer, run_transfer
    from epalm.console import say, size_in_words, warn

    plan = plan_transfer(source, target)
    done = None if only_plan else run_transfer(plan, verb)
    blocks, size = (done.blocks, done.bytes) if done else (len(plan.blocks), plan.bytes)
    faults = done.faults if done else plan.faults
    if as_json:
        figures = {"set": source.name, "from": source.where, "to": target.where, "there": plan.there}
        refused = [{"block": fault.block, "error": fault.error} for fault in faults]
        typer.echo(json.dumps({**figures, "blocks": blocks, "bytes": size, "refused": refused}))
    state, there = ("copied", "were there") if done else ("to copy", "are there")
    counted = f"{blocks:,} blocks, {size_in_words(size)} {state}"
    say(f"{source.name}: {counted} to {target.where}; {plan.there:,} {there}")
    for fault in faults:
        warn(f"not copied: {fault.error}")
    return done


def _say_next(cache: "Cache", features: "FeatureSet", source: "Cache | None" = None) -> None:
    from epalm.cache.exchange.transfer import note_latest
    from epalm.console import say

    latest = note_latest(cache, features, source)
    if latest:
        say(f"next: epalm train --from-cache --modality {latest.modality} --data {latest.data}")


def _end(done: "Transferred") -> None:
    from epalm.cli.cache_health import DAMAGED
    from epalm.console import say

    if done.faults:
        say("epalm cache verify --repair drops what is damaged there, and epalm extract makes it again")
        raise typer.Exit(DAMAGED)


def _only(cache: "Cache") -> str:
    from epalm.errors import CacheError, UsageError

    names = cache.set_names()
    if not names:
        raise CacheError(f"{cache.where} holds no feature set", hint="epalm cache push SET URL puts one there")
    if len(names) > 1:
        raise UsageError(
            f"{cache.where} holds {len(names)} feature sets: {', '.join(names)}",
            hint=f"epalm cache pull {cache.where} {names[0]}",
        )
    return names[0]


def _numbers(text: str) -> list[int]:
    """View numbers of "0", "0-4" or "0,2,3". Raises UsageError."""
    from epalm.errors import UsageError

    if match := re.fullmatch(r"(\d{1,4})-(\d{1,4})", text):
        return list(range(int(match[1]), int(match[2]) + 1))
    if re.fullmatch(r"\d{1,4}(,\d{1,4})*", text):
        return [int(number) for number in text.split(",")]
    raise UsageError(f"--views {text!r} is of no known form", hint="use 0, 0-4 or 0,2,3")
