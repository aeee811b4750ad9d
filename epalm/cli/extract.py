"""`epalm extract`: stage 1. Takes a request, and prints what would be done or what was done."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from epalm import PLAYGROUND
from epalm.console import say, warn
from epalm.extract.request import ExtractRequest

if TYPE_CHECKING:
    from epalm.extract.pipeline import ExtractSummary
    from epalm.extract.plan import ExtractionPlan

BAD_MEDIA = 3  # exit code: finished, and some media could not be read


def extract(request: ExtractRequest, *, plan: bool = False, as_json: bool = False) -> None:
    """Encode media once: the tokens of a frozen encoder, of each layer [CLS] or more, go to the cache.

    Media that are in the cache already are not encoded again, and layers that are stored are not stored twice. A
    medium that cannot be read becomes a line of the ledger, and the others go on; the exit code is then 3. One that can
    be read and is odd (a clip with holes) has a row, and a warning in the ledger.

    Examples:

        epalm extract --modality video
        epalm extract --modality image --data photos/ --plan
        epalm extract --modality audio --data sounds.jsonl --weights models/ast --layers last:4 --views 4
        epalm extract --modality image --data photos/ --tokens pool:2x2 --layers last:1 --plan
        epalm extract --modality image --data 'shards/train-{000..099}.tar' --precision bfloat16
        epalm extract --modality image --data photos/ --random-weights --engine dask --dask-workers 2
    """
    from epalm.extract.pipeline import execute
    from epalm.extract.plan import plan as plan_extraction

    choice = request.choice()
    if request.data == PLAYGROUND:
        say("data: the playground, a small built-in world (--data takes your own)")
    weights = f"weights {choice.weights}" if choice.weights else "its published weights, from the Hub"
    weights = "the playground's weights" if choice.weights == PLAYGROUND else weights
    say(f"encoder: {choice.kind}, {f'random weights (seed {choice.seed})' if choice.random_weights else weights}")
    planned = plan_extraction(request, dry=plan)
    if request.tokens is None and getattr(planned.encoder, "tokens", "cls") == "mean":
        say("this encoder has no [CLS] token: the mean of its tokens is stored, as with --tokens mean")
    if plan:
        _show_plan(planned, as_json)
        return
    if planned.encoder.device.type == "cuda" and planned.encoder.precision == "float32":
        say("the encoder computes in float32; GPUs are faster at --precision bfloat16, another feature set")
    if changed := planned.other_setting():
        say(f"the cache has such media with another setting, which differs in: {'; '.join(changed)}")
    summary = execute(planned)
    _show_summary(summary, request, planned.known_bad, as_json)
    if summary.bad or (summary.strict and summary.warned):
        raise typer.Exit(BAD_MEDIA)


def _show_plan(plan: "ExtractionPlan", as_json: bool) -> None:
    """Counts, bytes and time; raises CacheError when the rows would not fit."""
    from epalm.cli.work_plan import print_plan
    from epalm.datasets.listing import passed_over_in_words
    from epalm.extract.pipeline import probe_seconds, require_room

    passed_over, linked_roots, other = plan.dataset.passed_over, plan.dataset.linked_roots(), plan.other_setting()
    counts = {
        "media": plan.media,
        "augmented": plan.augmented,
        "in_cache": plan.hits,
        "warned": plan.existing.count_warned(plan.digests.values()) if plan.existing else 0,
        "lost_blocks": len(plan.lost),
        "new": plan.new,
        "stale": plan.stale,  # the file has changed
        "known_bad": plan.known_bad,
        "unreadable": len(plan.unreadable),
        "equal": plan.equal,
        "to_encode": len(plan.pending),
    }
    figures = {
        "set": plan.spec.name,
        "derived": plan.derived,
        "layers": list(plan.spec.layers),
        "tokens": plan.spec.tokens,
        **counts,
        "passed_over": passed_over,
        "linked_roots": linked_roots,
        "bytes": plan.bytes,
        "free_bytes": plan.cache.objects.free_bytes(),
        "seconds": probe_seconds(plan),
        "other_setting": other,
    }
    rows: dict[str, int | str] = {"feature set": plan.spec.name, "tokens of a layer": plan.spec.tokens}
    rows |= {name.replace("_", " "): count for name, count in counts.items()}
    if plan.derived:
        rows["derived"] = plan.derived
    if other:
        rows["in the cache with another setting"] = "; ".join(other)
    print_plan("extract", figures, rows, as_json)
    if passed_over and not as_json:
        typer.echo(passed_over_in_words(passed_over))
    if linked_roots and not as_json:
        typer.echo(f"links lead to {', '.join(linked_roots)}")
    require_room(plan)


def _show_summary(summary: "ExtractSummary", request: ExtractRequest, known_bad: int, as_json: bool) -> None:
    """What was done; `known_bad` media were in the ledger before."""
    from epalm.datasets.listing import passed_over_in_words

    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    counts = [
        f"{summary.hits} in the cache already",
        f"{summary.encoded} encoded",
        *([f"{summary.elsewhere} encoded by others"] if summary.elsewhere else []),
        *([f"{summary.equal} equal to others"] if summary.equal else []),
        f"{summary.bad} bad",
        *([f"{summary.warned} with a warning"] if summary.warned else []),
    ]
    rate = f" ({summary.encoded / summary.seconds:.1f} media/s)" if summary.encoded else ""
    say(f"{summary.media} {request.modality} media: {', '.join(counts)}, in {summary.seconds:.1f} s{rate}")
    if summary.passed_over:
        say(passed_over_in_words(summary.passed_over))
    if summary.views:
        span = "view 1" if summary.views == 1 else f"views 1 to {summary.views}"
        say(f"view 0 of all media, {span} of {summary.augmented:,}")
    derived = f": {summary.derived}, when they are read" if summary.derived else ""
    say(f"feature set {summary.set_name} in {request.cache}{derived}")
    ledger = f"{summary.ledger} (epalm cache ledger)"
    if summary.bad:
        refused = "could not be read, or have a warning" if summary.strict else "could not be read"
        again = f"; {known_bad} of them were known, and not tried again: --retry-bad" if known_bad else ""
        warn(f"{summary.bad} media {refused}; each is a line in {ledger}{again}")
    if summary.warned:
        counted = "; with --strict-media they count as bad, but the rows of an extraction without it stay in the cache"
        warn(f"{summary.warned} media have a row and a warning in {ledger}{counted if summary.strict else ''}")
