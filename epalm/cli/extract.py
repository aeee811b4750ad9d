"""`epalm extract`: stage 1. Reads the options, says what was chosen, prints what was done."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epalm.cli.options import DEFAULT_CACHE, CacheOption, DataOption, DeviceOption, JsonOption, ModalityOption
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.extract.encoders import EncoderChoice
    from epalm.extract.pipeline import ExtractSummary
    from epalm.extract.plan import Plan

BAD_MEDIA = 3  # exit code: finished, and some media could not be read
STOPPED = 130  # exit code: Ctrl-C


def extract(
    *,
    modality: ModalityOption,
    data: DataOption = "playground",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="vit, timesformer, timesformer-space, vit-frames or ast. [default: by modality]",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help='Hub name, folder or "playground". [default: as the data; else the published ones]',
            show_default=False,
        ),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Draw the weights: tries the pipeline without a download."),
    ] = False,
    frames: Annotated[
        int | None, typer.Option(help="Frames per clip. [default: the encoder's own]", min=1, max=512)
    ] = None,
    layers: Annotated[str, typer.Option(help="Blocks to store: last:6, all, 6-11 or 7,9,11.")] = "last:6",
    dtype: Annotated[str, typer.Option(help="How values are stored: float16 or float32.")] = "float16",
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(help="Media per pass of the encoder.", min=1)] = 32,
    block_rows: Annotated[int, typer.Option(help="Media per file of the cache.", min=1)] = 512,
    workers: Annotated[
        int | None,
        typer.Option(help="Decoding processes; 0: none. [default: one per core but one]", min=0, max=256),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that decoding one file may take.", min=0.1)] = 120.0,
    retry_bad: Annotated[
        bool, typer.Option("--retry-bad", help="Try media again that the ledger lists as bad.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of --random-weights.", min=0)] = 0,
    cache: CacheOption = DEFAULT_CACHE,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Encode media once: the [CLS] tokens of a frozen encoder go to the cache.

    Media that are in the cache already are not encoded again. A medium that cannot be read becomes a line of
    the ledger, and the others go on; the exit code is then 3.

    Examples:

        epalm extract --modality video

        epalm extract --modality image --data photos/ --plan

        epalm extract --modality audio --data sounds.jsonl --weights models/ast --layers last:4

        epalm extract --modality image --data photos/ --random-weights
    """
    from epalm.cache.store import Cache
    from epalm.console import say
    from epalm.datasets import load_dataset
    from epalm.extract.encoders import EncoderChoice, build_encoder, default_kind, require_fit
    from epalm.extract.pipeline import extract_features
    from epalm.extract.plan import make_plan
    from epalm.extract.selection import feature_spec, parse_layers

    playground = data == "playground"
    if playground and weights is None and not random_weights:
        weights = "playground"
    if weights is not None and Path(weights).is_dir():
        weights = str(Path(weights).resolve())  # recorded with the feature set, and found from anywhere
    choice = require_fit(
        EncoderChoice(encoder or default_kind(modality), weights, random_weights, frames, seed), modality
    )
    if playground:
        say("data: the playground, a small built-in world (--data takes your own)")
    say(f"encoder: {choice.kind}, {_weights_in_words(choice)}")
    store = Cache(cache)
    try:
        dataset = load_dataset(data, modality)
        model = build_encoder(choice, device=device)
        chosen = parse_layers(layers, model.depth)
        if plan:
            planned = make_plan(dataset, modality, feature_spec(model, chosen, dtype), store, retry_bad=retry_bad)
            _show_plan(planned, as_json)
            return
        summary = extract_features(
            dataset,
            modality,
            model,
            chosen,
            store,
            dtype=dtype,
            batch_size=batch_size,
            workers=workers,
            block_rows=block_rows,
            timeout=timeout,
            retry_bad=retry_bad,
            choice=choice,
        )
    except KeyboardInterrupt:
        command = shlex.join(["epalm", *sys.argv[1:]])
        say(f"stopped; every full block is in the cache. To go on: {command}")
        raise typer.Exit(STOPPED) from None
    store.remember(modality.value, summary.set_name, data)
    _show_summary(summary, modality, cache, as_json)
    if summary.bad:
        raise typer.Exit(BAD_MEDIA)


def _weights_in_words(choice: "EncoderChoice") -> str:
    if choice.random_weights:
        return f"random weights (seed {choice.seed})"
    if choice.weights == "playground":
        return "the playground's weights"
    return f"weights {choice.weights}" if choice.weights else "the paper's pretrained weights, from the Hub"


def _show_plan(plan: "Plan", as_json: bool) -> None:
    figures: dict[str, Any] = {
        "set": plan.set_name,
        "media": plan.media,
        "in_cache": plan.hits,
        "to_encode": len(plan.pending),
        "known_bad": plan.known_bad,
        "unreadable": len(plan.unreadable),
        "bytes": plan.bytes,
    }
    if as_json:
        typer.echo(json.dumps(figures))
        return
    from epalm.console import print_table

    print_table("extract would do", ("", "count"), [(key, str(value)) for key, value in figures.items()])


def _show_summary(summary: "ExtractSummary", modality: Modality, cache: Path, as_json: bool) -> None:
    from epalm.console import say, warn

    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    rate = f" ({summary.encoded / summary.seconds:.1f} media/s)" if summary.encoded else ""
    say(
        f"{summary.media} {modality} media: {summary.hits} in the cache already, {summary.encoded} encoded, "
        f"{summary.bad} bad, in {summary.seconds:.1f} s{rate}"
    )
    say(f"feature set {summary.set_name} in {cache}")
    if summary.bad:
        warn(f"{summary.bad} media could not be read; each is a line in {summary.ledger}")
