"""The options that several commands share: one name, one meaning, one default each."""

from pathlib import Path
from typing import Annotated

import typer

import epalm
from epalm.samples import Modality

DEFAULT_CACHE = epalm.DEFAULT_CACHE
DEFAULT_RUNS = Path(epalm.DEFAULT_RUNS)

_DATA = (
    "Samples (.jsonl, .json, .csv, .tsv), a folder of media, tar shards, NAME:/root of a benchmark (epalm datasets), "
    'or "playground"'
)
_LINKS = "Let links below the data's folder lead out of it; later steps on this data do so too."
_DEVICE = "auto, cpu, cuda, cuda:N or mps; auto takes the GPU where there is one."
_RECIPE = "A recipe's name or a .toml file. [default: that of the same name as the data; own for yours]"
_SET = "Override one key of the recipe; may be given several times."
_CHECKPOINT = "best, by the loss at validation, or latest, of a run that is not done too."
_LAYERS = "Blocks whose tokens are used: last:6, all, 6-11 or 7,9,11. [default: those of the extraction]"
_ENGINE = "Who does the work: local (this machine) or dask."
_SCHEDULER = "With --engine dask: tcp://HOST:PORT of a cluster's scheduler. [default: a cluster on this machine]"
_WORKERS = "With --engine dask, no --scheduler: processes to start."
_NOW = "Where the run's {} is now: a folder or Hub name. [default: as in training]"
_PANEL = "Machine"

CacheOption = Annotated[
    str,
    typer.Option("--cache", envvar="EPALM_CACHE", help="Feature cache: a folder, or a URL such as s3://bucket/cache."),
]
RunsOption = Annotated[
    Path, typer.Option("--runs", envvar="EPALM_RUNS", help="Folder that holds the run folders.", show_default=True)
]
DataOption = Annotated[str, typer.Option("--data", help=f"{_DATA} (the built-in world).")]
OptionalDataOption = Annotated[str | None, typer.Option("--data", help=f"{_DATA}. [default: that of the step before]")]
FollowLinksOption = Annotated[bool, typer.Option("--follow-links", help=_LINKS)]
ModalityOption = Annotated[
    Modality, typer.Option("--modality", "-m", help="Which media to work on.", case_sensitive=False)
]
OptionalModalityOption = Annotated[
    Modality | None,
    typer.Option(
        "--modality", "-m", help="Which media to work on. [default: found from what is there]", case_sensitive=False
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help=_DEVICE)]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help=_RECIPE)]
SettingsOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SET)]
CheckpointOption = Annotated[str, typer.Option("--checkpoint", help=_CHECKPOINT)]
LayersOption = Annotated[str | None, typer.Option("--layers", help=_LAYERS)]
EngineOption = Annotated[str, typer.Option("--engine", help=_ENGINE, rich_help_panel=_PANEL)]
SchedulerOption = Annotated[str | None, typer.Option("--scheduler", help=_SCHEDULER, rich_help_panel=_PANEL)]
DaskWorkersOption = Annotated[int, typer.Option("--dask-workers", help=_WORKERS, min=1, rich_help_panel=_PANEL)]
LmOption = Annotated[str | None, typer.Option("--lm", help=_NOW.format("language model"))]
WeightsOption = Annotated[str | None, typer.Option("--weights", help=_NOW.format("encoder"))]
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what would be done, and stop: nothing is written.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
