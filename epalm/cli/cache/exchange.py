"""`epalm cache export`, `import`, `push` and `pull`: feature sets as files, and from one cache to another."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.cache.care import DAMAGED
from epalm.cli.cache.sets import SetArgument
from epalm.cli.options import DEFAULT_CACHE
from epalm.cli.outputs import require_output
from epalm.console import say, size_in_words, warn
from epalm.errors import UsageError
from epalm.request_fields import Option

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.cache.store import Cache

_UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="Another cache: a folder, or a URL such as s3://bucket/cache. A data set of Parquet files and a card: "
        "hf://datasets/OWNER/NAME of the Hugging Face Hub, or parquet://FOLDER.",
    ),
]


def export_features(
    name: SetArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .h5.", writable=True)],
    layers: Annotated[
        str | None, Option("Blocks whose tokens are written: last:6, 6-11 or 7,9,11. [default: all stored]")
    ] = None,
    views: Annotated[
        str | None, Option("0, 0-4 or 0,2: media that lack one are left out. [default: those all have]")
    ] = None,
    force: bool = False,
    cache: str = DEFAULT_CACHE,
    as_json: bool = False,
) -> None:
    """Write a feature set to one HDF5 file, which can be imported again.

    Every block is verified as it is read. The file is there whole or not at all.

    Examples:

        epalm cache export image features.h5
        epalm cache export image-vit features.h5 --layers last:1 --views 0
        epalm cache export video features.h5 --cache s3://bucket/cache
    """
    from epalm.cache.exchange.files import export_set
    from epalm.cache.spec import parse_layers
    from epalm.cache.store import Cache

    require_output(file, [cache], ours=False, force=force)
    store = Cache(cache)
    features = store.find(name)
    done = export_set(
        features,
        file,
        layers=None if layers is None else store.chosen_layers(features, layers),
        views=None if views is None else parse_layers(views, features.views() or (0,), "--views", "views"),
    )
    if done["left_out"]:
        warn(f"{done['left_out']:,} media lack one of the views {list(done['views'])} and are left out")
    if as_json:
        typer.echo(json.dumps(done))
    say(
        f"{done['media']:,} media, views {list(done['views'])}, layers {list(done['layers'])}: "
        f"{size_in_words(done['bytes'])} in {done['file']}"
    )


def import_features(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .h5 file of epalm cache export.")],
    cache: str = DEFAULT_CACHE,
    as_json: bool = False,
) -> None:
    """Take the feature set of an HDF5 file into the cache; rows that are there already are left alone.

    The whole file is checked before anything is written: it need not come from somebody whom you trust.

    Examples:

        epalm cache import features.h5
        epalm cache import features.h5 --cache /data/cache
    """
    from epalm.cache.exchange.files import import_set
    from epalm.cache.store import Cache

    store = Cache(cache)
    done = import_set(store, file)
    if as_json:
        typer.echo(json.dumps(done))
    say(f"{done['set']}: {done['media']:,} media taken in, {done['there']:,} were there")
    _say_next(store, store.load(done["set"]))


def push(
    name: SetArgument,
    url: _UrlArgument,
    licence: Annotated[
        str | None,
        Option("What the card of a data set says, such as cc-by-4.0. [default: what it says already, else unknown]"),
    ] = None,
    plan: bool = False,
    cache: str = DEFAULT_CACHE,
    as_json: bool = False,
) -> None:
    """Copy a feature set to another cache, so that others can use it.

    Only blocks that are not there are copied, each verified first, so the same command goes on after a stop. A
    damaged block is named and not copied; the exit code is then 3. A repository that the Hub does not have is made, a
    private one; the token is that of hf auth login.

    Examples:

        epalm cache push image s3://bucket/cache --plan
        epalm cache push image s3://bucket/cache
        epalm cache push video-timesformer /mnt/shared/cache
        epalm cache push image hf://datasets/OWNER/NAME --licence cc-by-4.0
    """
    from epalm.cache.store import Cache

    target = _other_cache(url, plan, pushing=True, licence=licence)
    _copy_set(Cache(cache, read_only=plan), name, target, "push", plan, as_json)


def pull(
    url: _UrlArgument,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SET]", help="Name of a feature set, or how it begins. [default: the only one]"),
    ] = None,
    plan: bool = False,
    cache: str = DEFAULT_CACHE,
    as_json: bool = False,
) -> None:
    """Copy a feature set from another cache, and train on it, with or without the media.

    Only blocks that are not here are copied, each verified first, so the same command goes on after a stop.

    Examples:

        epalm cache pull s3://bucket/cache
        epalm cache pull s3://bucket/cache image-vit --plan
        epalm cache pull /mnt/shared/cache video --cache /data/cache
        epalm cache pull hf://datasets/OWNER/NAME
    """
    from epalm.cache.store import Cache

    _copy_set(_other_cache(url, True), name or "", Cache(cache, read_only=plan), "pull", plan, as_json)


def _other_cache(url: str, read_only: bool, *, pushing: bool = False, licence: str | None = None) -> "Cache":
    from epalm.cache.exchange.published import SCHEMES, PublishedSets
    from epalm.cache.store import Cache

    if url.startswith(SCHEMES):
        return Cache(PublishedSets(url, pushing=pushing, licence=licence), read_only=read_only)
    if licence is not None:
        raise UsageError("--licence is for a data set with a card", hint="push to hf://datasets/OWNER/NAME")
    return Cache(url, read_only=read_only)


def _copy_set(source: "Cache", name: str, target: "Cache", verb: str, only_plan: bool, as_json: bool) -> None:
    """Copy a set, or say what there is to copy. Raises typer.Exit where something is damaged."""
    from epalm.cache.exchange.published import PublishedSets
    from epalm.cache.exchange.transfer import note_latest, plan_transfer, run_transfer

    features = source.find(name)
    plan = plan_transfer(features, target)
    done = plan if only_plan else run_transfer(plan, verb)
    if as_json:
        figures = {"set": features.name, "from": features.where, "to": target.where, "there": plan.there}
        refused = [{"block": fault.block, "error": fault.error} for fault in done.faults]
        typer.echo(json.dumps({**figures, "blocks": len(done.blocks), "bytes": done.bytes, "refused": refused}))
    counted = f"{len(done.blocks):,} blocks, {size_in_words(done.bytes)} {'to copy' if only_plan else 'copied'}"
    say(f"{features.name}: {counted} to {target.where}; {plan.there:,} {'are' if only_plan else 'were'} there")
    for fault in done.faults:
        warn(f"not copied: {fault.error}")
    if only_plan:
        return
    arrived = target.load(features.name)
    if verb == "pull":
        _say_next(target, arrived, source)
    else:  # whoever trains from there finds this set; who extracted there keeps theirs
        note_latest(target, arrived, source, keep=True)
        if isinstance(target.objects, PublishedSets):
            target.objects.finish()
    if done.faults:
        say("epalm cache verify --repair drops what is damaged there, and epalm extract makes it again")
        raise typer.Exit(DAMAGED)


def _say_next(cache: "Cache", features: "FeatureSet", source: "Cache | None" = None) -> None:
    from epalm.cache.exchange.transfer import note_latest

    latest = note_latest(cache, features, source)
    if latest:
        # Another cache's text: what a terminal acts on is shown as its escape, what a shell acts on is quoted.
        shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in latest.data)
        say(f"next: epalm train --from-cache --modality {latest.modality} --data {shlex.quote(shown)}")
