"""What `epalm extract` prints: the plan before, the summary after."""

import json
from typing import TYPE_CHECKING, Any

import typer

from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.cli.extraction import Forecast
    from epalm.extract.encoders.registry import EncoderChoice
    from epalm.extract.pipeline import ExtractSummary


def weights_in_words(choice: "EncoderChoice") -> str:
    """Which weights an encoder is to have."""
    if choice.random_weights:
        return f"random weights (seed {choice.seed})"
    if choice.weights == "playground":
        return "the playground's weights"
    return f"weights {choice.weights}" if choice.weights else "the paper's pretrained weights, from the Hub"


def show_plan(forecast: "Forecast", as_json: bool) -> None:
    """Counts, bytes and time; raises CacheError when the rows would not fit."""
    from epalm.cache.care.holes import count_warned
    from epalm.console import print_table, size_in_words, time_in_words
    from epalm.datasets.listing import in_words

    plan, seconds, free = forecast.plan, forecast.seconds, forecast.free
    warned = count_warned(plan.existing, plan.digests.values()) if plan.existing else 0
    figures: dict[str, Any] = {
        "set": plan.spec.name,
        "layers": list(plan.spec.layers),
        "media": plan.media,
        "augmented": plan.augmented,
        "in_cache": plan.hits,
        "warned": warned,
        "new": plan.new,
        "stale": plan.stale,
        "known_bad": plan.known_bad,
        "lost_blocks": len(plan.lost),
        "unreadable": len(plan.unreadable),
        "equal": plan.equal,
        "to_encode": len(plan.pending),
        "passed_over": plan.passed_over,
        "linked_roots": plan.linked_roots,
        "bytes": plan.bytes,
        "free_bytes": free,
        "seconds": seconds,
        "other_setting": forecast.other_setting,
    }
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        rows = [
            ("feature set", plan.spec.name),
            ("media", f"{plan.media:,}"),
            ("of these in augmented views too", f"{plan.augmented:,}"),
            ("in the cache", f"{plan.hits:,}"),
            *([("of these with a warning in the ledger", f"{warned:,}")] if warned else []),
            *([("blocks of it that are not there any more", f"{len(plan.lost):,}")] if plan.lost else []),
            ("new", f"{plan.new:,}"),
            *(("in the cache with another setting", line) for line in forecast.other_setting),
            ("stale: the file has changed", f"{plan.stale:,}"),
            ("bad, in the ledger", f"{plan.known_bad:,}"),
            ("unreadable", f"{len(plan.unreadable):,}"),
            ("equal to another of these", f"{plan.equal:,}"),
            ("to encode", f"{len(plan.pending):,}"),
            ("to write", size_in_words(plan.bytes)),
            ("free", "no known limit" if free is None else size_in_words(free)),
            ("time, from a probe on this machine", time_in_words(seconds)),
        ]
        print_table("extract would do", ("", ""), rows)
        if plan.passed_over:
            typer.echo(in_words(plan.passed_over))
        if plan.linked_roots:
            typer.echo(f"links lead to {', '.join(plan.linked_roots)}")
    plan.require_room(free)


def show_summary(summary: "ExtractSummary", modality: Modality, cache: str, as_json: bool) -> None:
    """What was done."""
    from epalm.console import say, warn
    from epalm.datasets.listing import in_words

    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    rate = f" ({summary.encoded / summary.seconds:.1f} media/s)" if summary.encoded else ""
    warned = f"{summary.warned} with a warning, " if summary.warned else ""
    elsewhere = f"{summary.elsewhere} encoded by others, " if summary.elsewhere else ""
    equal = f"{summary.equal} equal to others, " if summary.equal else ""
    say(
        f"{summary.media} {modality} media: {summary.hits} in the cache already, {summary.encoded} encoded, "
        f"{elsewhere}{equal}{summary.bad} bad, {warned}in {summary.seconds:.1f} s{rate}"
    )
    if summary.passed_over:
        say(in_words(summary.passed_over))
    if summary.views:
        span = "view 1" if summary.views == 1 else f"views 1 to {summary.views}"
        say(f"view 0 of all media, {span} of {summary.augmented:,}")
    say(f"feature set {summary.set_name} in {cache}")
    if summary.bad:
        refused = "could not be read, or have a warning" if summary.strict else "could not be read"
        warn(f"{summary.bad} media {refused}; each is a line in {summary.ledger} (epalm cache ledger)")
    if summary.warned:
        withheld = (
            "; with --strict-media they count as bad, but their rows, of an extraction without it, stay in the cache"
        )
        warn(
            f"{summary.warned} media have a row and a warning in {summary.ledger} (epalm cache ledger)"
            f"{withheld if summary.strict else ''}"
        )
