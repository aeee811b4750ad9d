"""`epalm extract`: stage 1. Reads the options, says what was chosen, and hands over to the pipeline."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.encoder_names import ENCODERS
from epalm.cli.options import (
    DEFAULT_CACHE,
    CacheOption,
    DaskWorkersOption,
    DataOption,
    DeviceOption,
    EngineOption,
    FollowLinksOption,
    JsonOption,
    ModalityOption,
    PlanOption,
    SchedulerOption,
)
from epalm.samples import with_links

BAD_MEDIA = 3  # exit code: finished, and some media could not be read
STOPPED = 130  # exit code: Ctrl-C
_ENCODER, _VIEWS, _MACHINE, _LIMITS = "Encoder", "Views", "Machine", "Limits of one medium"


def extract(
    *,
    modality: ModalityOption,
    data: DataOption = "playground",
    follow_links: FollowLinksOption = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            help=f"{ENCODERS}. [default: by modality]",
            show_default=False,
            rich_help_panel=_ENCODER,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help='Hub name, folder or "playground". [default: as the data; else the published ones]',
            show_default=False,
            rich_help_panel=_ENCODER,
        ),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Draw the weights: tries the pipeline without a download.",
            rich_help_panel=_ENCODER,
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of --random-weights.", min=0, rich_help_panel=_ENCODER)] = 0,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames per clip. [default: the encoder's own]", min=1, max=512, rich_help_panel=_ENCODER),
    ] = None,
    reduced_jpeg: Annotated[
        bool,
        typer.Option(
            "--reduced-jpeg",
            help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size: faster, and slightly other pixels.",
            rich_help_panel=_ENCODER,
        ),
    ] = False,
    statistics: Annotated[
        str,
        typer.Option(
            help="Mean and deviation of pixels: the encoder's own, or clip, as published checkpoints had it.",
            rich_help_panel=_ENCODER,
        ),
    ] = "own",
    layers: Annotated[
        str, typer.Option(help="Blocks to store: last:6, all, 6-11 or 7,9,11.", rich_help_panel=_ENCODER)
    ] = "last:6",
    dtype: Annotated[
        str, typer.Option(help="How values are stored: float16 or float32.", rich_help_panel=_ENCODER)
    ] = "float16",
    precision: Annotated[
        str,
        typer.Option(
            help="Of the encoder's matrix products: float32, or bfloat16 or float16 (much faster on a GPU).",
            rich_help_panel=_ENCODER,
        ),
    ] = "float32",
    views: Annotated[
        int,
        typer.Option(help="Augmented views to store beside the plain one.", min=0, max=255, rich_help_panel=_VIEWS),
    ] = 0,
    view_seed: Annotated[int, typer.Option(help="Seed of augmented views.", min=0, rich_help_panel=_VIEWS)] = 0,
    views_split: Annotated[
        str, typer.Option(help="Split whose media get augmented views.", rich_help_panel=_VIEWS)
    ] = "train",
    spec_augment: Annotated[
        str,
        typer.Option(
            help='Audio views: widest frequency mask (mel bins) and time mask (frames), or "off".',
            rich_help_panel=_VIEWS,
        ),
    ] = "24/96",
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int, typer.Option(help="Media per pass of the encoder.", min=1, rich_help_panel=_MACHINE)
    ] = 32,
    block_rows: Annotated[
        int, typer.Option(help="Media per block of the cache.", min=1, rich_help_panel=_MACHINE)
    ] = 512,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Decoding processes; 0: none. [default: one per core but one]",
            min=0,
            max=256,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the encoder with torch.compile: pays for long work.", rich_help_panel=_MACHINE
        ),
    ] = False,
    engine: EngineOption = "local",
    scheduler: SchedulerOption = None,
    dask_workers: DaskWorkersOption = 2,
    timeout: Annotated[
        float, typer.Option(help="Seconds that decoding may take.", min=0.1, rich_help_panel=_LIMITS)
    ] = 120.0,
    max_pixels: Annotated[int, typer.Option(help="Pixels of a picture.", min=1, rich_help_panel=_LIMITS)] = 100_000_000,
    max_frames: Annotated[int, typer.Option(help="Frames of a clip.", min=1, rich_help_panel=_LIMITS)] = 1_000_000,
    max_seconds: Annotated[
        float, typer.Option(help="Seconds of a clip or a recording.", min=0.001, rich_help_panel=_LIMITS)
    ] = 21_600.0,
    max_bytes: Annotated[int, typer.Option(help="Bytes of a file.", min=1, rich_help_panel=_LIMITS)] = 16 << 30,
    strict_media: Annotated[
        bool, typer.Option("--strict-media", help="Media that decode with a warning count as bad.")
    ] = False,
    retry_bad: Annotated[
        bool, typer.Option("--retry-bad", help="Try media again that the ledger lists as bad.")
    ] = False,
    cache: CacheOption = DEFAULT_CACHE,
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode media once: the [CLS] tokens of a frozen encoder go to the cache.

    Media that are in the cache already are not encoded again, and layers that are stored are not stored twice. A
    medium that cannot be read becomes a line of the ledger, and the others go on; the exit code is then 3. One that can
    be read and is odd (a clip with holes) has a row, and a warning in the ledger.

    Examples:

        epalm extract --modality video

        epalm extract --modality image --data photos/ --plan

        epalm extract --modality audio --data sounds.jsonl --weights models/ast --layers last:4 --views 4

        epalm extract --modality image --data 'shards/train-{000..099}.tar' --precision bfloat16

        epalm extract --modality image --data photos/ --random-weights --engine dask --dask-workers 2
    """
    from epalm.cli.extract_report import show_plan, show_summary, weights_in_words
    from epalm.cli.extraction import Job, Machine, plan_extraction, run_extraction
    from epalm.console import say
    from epalm.extract.encoders.registry import EncoderChoice, default_kind, parse_spec_augment, require_fit
    from epalm.extract.media.limits import Limits

    playground = data == "playground"
    data = with_links(data, follow=follow_links)
    if playground and weights is None and not random_weights:
        weights = "playground"
    if weights is not None and Path(weights).is_dir():
        weights = str(Path(weights).resolve())  # recorded with the feature set, and found from anywhere
    masks = parse_spec_augment(spec_augment)
    choice = EncoderChoice(
        encoder or default_kind(modality),
        weights,
        random_weights,
        frames,
        seed,
        precision=precision,
        reduced_jpeg=reduced_jpeg,
        augmented=masks is not None,
        spec_augment=masks or (0, 0),
        statistics=statistics,
    )
    job = Job(modality, data, require_fit(choice, modality), layers, dtype, views, view_seed, views_split, retry_bad)
    machine = Machine(device, batch_size, block_rows, workers, compiled, engine, scheduler, dask_workers, timeout)
    if playground:
        say("data: the playground, a small built-in world (--data takes your own)")
    say(f"encoder: {choice.kind}, {weights_in_words(choice)}")
    limits = Limits(pixels=max_pixels, frames=max_frames, seconds=max_seconds, bytes=max_bytes, strict=strict_media)
    if plan:
        show_plan(plan_extraction(job, machine, limits, cache), as_json)
        return
    try:
        summary = run_extraction(job, machine, limits, cache)
    except KeyboardInterrupt:
        command = shlex.join(["epalm", *sys.argv[1:]])
        say(f"stopped; every full block is in the cache. To go on: {command}")
        raise typer.Exit(STOPPED) from None
    show_summary(summary, modality, cache, as_json)
    if summary.bad or (summary.strict and summary.warned):
        raise typer.Exit(BAD_MEDIA)
