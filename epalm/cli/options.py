"""The options that several commands share: one name, one meaning, one default each."""

from pathlib import Path
from typing import Annotated

import typer

import epalm
from epalm.samples import Modality

DEFAULT_CACHE = epalm.DEFAULT_CACHE
DEFAULT_RUNS = Path(epalm.DEFAULT_RUNS)

CacheOption = Annotated[
    str,
    typer.Option("--cache", envvar="EPALM_CACHE", help="Feature cache: a folder, or a URL such as s3://bucket/cache."),
]
RunsOption = Annotated[
    Path,
    typer.Option("--runs", envvar="EPALM_RUNS", help="Folder that holds the run folders.", show_default=True),
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="Samples (.jsonl, .json, .csv, .tsv), a folder of media, tar shards, NAME:/root of a benchmark "
        '(epalm datasets), or "playground" (the built-in world).',
    ),
]
OptionalDataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Samples (.jsonl, .json, .csv, .tsv), a folder of media, tar shards, NAME:/root of a benchmark "
        '(epalm datasets), or "playground". [default: that of the step before]',
        show_default=False,
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        help="Let links below the data's folder lead out of it; later steps on this data do so too.",
    ),
]
ModalityOption = Annotated[
    Modality, typer.Option("--modality", "-m", help="Which media to work on.", case_sensitive=False)
]
OptionalModalityOption = Annotated[
    Modality | None,
    typer.Option(
        "--modality",
        "-m",
        help="Which media to work on. [default: found from what is there]",
        case_sensitive=False,
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; auto takes the GPU where there is one."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A recipe's name or a .toml file. [default: that of the same name as the data; own for yours]",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe; may be given several times."),
]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", help="best, by the loss at validation, or latest, of a run that is not done too.")
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        help="Blocks whose tokens are used: last:6, all, 6-11 or 7,9,11. [default: those of the extraction]",
        show_default=False,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option("--engine", help="Who does the work: local (this machine) or dask.", rich_help_panel="Machine"),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="With --engine dask: tcp://HOST:PORT of a cluster's scheduler. [default: a cluster on this machine]",
        show_default=False,
        rich_help_panel="Machine",
    ),
]
DaskWorkersOption = Annotated[
    int,
    typer.Option(
        "--dask-workers",
        help="With --engine dask, no --scheduler: processes to start.",
        min=1,
        rich_help_panel="Machine",
    ),
]
LmOption = Annotated[
    str | None,
    typer.Option(
        "--lm",
        help="Where the run's language model is now: a folder or Hub name. [default: as in training]",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Where the run's encoder is now: a folder or Hub name. [default: as in training]",
        show_default=False,
    ),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what would be done, and stop: nothing is written.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
